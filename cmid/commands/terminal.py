"""Where the verbs tell what they do, and what came of it."""

from rich.console import Console


def terminal(*, results: bool = False, quiet: bool = False) -> Console:
    """Prints paths and brackets as they are, without markup, colours or line breaks of its own.

    Args:
        results: to standard output, for what a script may read on; else to standard error.
        quiet: prints nothing, as of processes that do not lead.
    """
    return Console(stderr=not results, highlight=False, markup=False, soft_wrap=True, quiet=quiet)
