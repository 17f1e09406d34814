"""The command line: `cmid VERB ...`. A verb is named here and imported only when it is called.

To add a verb: a dataclass in `cmid/config` (its docstring and those under its fields are the help), a function
that takes it in `cmid/commands/VERB.py`, a line in the table of `cmid/commands/__init__.py`, and its twin in
`cmid/__init__.py`. Options, `--config`, checks and errors follow from these.
"""

import errno
import os
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from operator import attrgetter
from typing import Any, Literal, get_args, get_origin

from cmid.commands import VERBS, carry_out, positional, settings_class
from cmid.errors import CmidError, UsageError, cause_of, did_you_mean, exit_code, is_out_of_memory

SOURCE = "command line"
FILES = {"recipe": "NAME", "config": "FILE.yaml"}
TRUTHS = {"true", "false", "yes", "no"}
OF_RECIPES = ", which wins over --recipe"
NOTES = (
    f"Of a setting given several times, the command line's wins over --config{OF_RECIPES}, wherever they stand. "
    "Lists are written 0.2,1. Dashes and underscores are the same. A true-or-false setting may stand alone "
    "(--resume) or be denied (--no-report)."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code.

    0 is done, 1 a failure while running, 2 a request that cannot be carried out, 130 interrupted, 141 nobody reads
    the output any more. Whatever is not a `CmidError` is our own mistake and keeps its traceback.
    """
    if isinstance(sys.stdout, TextIOWrapper):  # names of files may be no text
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except CmidError as error:
        if not error.quiet:
            print("cmid: error:", " ".join(str(error).split()), file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("cmid: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        return 141
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        advice = "smaller batches, images or windows, or fewer workers, take less"
        print(f"cmid: error: memory was short: {cause_of(error)} ({advice})", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        longest = max(" ".join(str(error.filename).split()).split("/"), key=len)
        print(f"cmid: error: no file can have a name this long: {longest[:60]} ...", file=sys.stderr)
        return 2
    return 0


def _run(argv: list[str]) -> None:
    first = argv[0] if argv else "--help"
    if first in ("-h", "--help"):
        print(_overview())
    elif first == "--version":
        from importlib.metadata import version

        print("cmid", version("cmid"))
    elif first not in VERBS:
        advice = did_you_mean(first, VERBS) or f" There are {', '.join(VERBS)}."
        raise UsageError(f"Unknown verb {first!r}.{advice}")
    elif {"-h", "--help"} & set(argv[1:]):
        print(_help(first, _kind_among(first, argv[1:])))
    else:
        words = read_words(first, argv[1:])
        carry_out(first, words.given, kind=words.kind, source=SOURCE, **words.files)


@dataclass
class Words:
    """A command line taken apart.

    Attributes:
        given: dotted field to its text, or to True or False for a switch.
        files: `recipe` and `config`, where given.
        kind: the first word of a verb that has kinds.
    """

    given: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    kind: str | None = None


def read_words(verb: str, argv: Sequence[str]) -> Words:
    """What the words after `verb` give, in any order.

    Raises:
        UsageError: an unknown option (with the nearest), an option without its value, a word too many.
    """
    from cmid.commands.settings import SHORT, field_types, unknown_field

    known = field_types(settings_class(verb, _kind_among(verb, argv)))
    words, free, rest = Words(), [], list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            free += rest
            break
        if not word.startswith("-") or word == "-":
            free.append(word)
            continue
        name, has_value, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        name = SHORT.get(name, name) if SHORT.get(name) in known else name
        denied = name.removeprefix("no_")
        if name in FILES:
            if name in words.files:
                raise UsageError(f"--{name} was given twice; give one.")
            words.files[name] = value if has_value else _value(word, rest)
        elif name in known and _is_switch(known[name]):
            if not has_value:
                value = rest.pop(0) if rest and rest[0].lower() in TRUTHS else "true"
            words.given[name] = value
        elif name in known:
            words.given[name] = value if has_value else _value(word, rest)
        elif denied in known and _is_switch(known[denied]) and not has_value:
            words.given[denied] = "false"
        else:
            raise unknown_field(name, [*known, *FILES], SOURCE)
    _place(verb, free, words)
    return words


def _kind_among(verb: str, argv: Sequence[str]) -> str | None:
    """The kind that a line names, found before its options are read: they are the kind's own."""
    kinds = VERBS[verb].kinds
    after_options = {i + 1 for i, word in enumerate(argv) if word.startswith("-") and "=" not in word}
    sure = (word for i, word in enumerate(argv) if word in kinds and i not in after_options)
    return next(sure, None) or next((word for word in argv if word in kinds), None)


def _value(option: str, rest: list[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise UsageError(f"{option} needs a value after it, found {rest[0] if rest else 'the end of the line'}.")
    return rest.pop(0)


def _is_switch(wanted: Any) -> bool:
    return bool in (wanted, *get_args(wanted))


def _place(verb: str, free: list[str], words: Words) -> None:
    """Give the words without an option their meaning by their order."""
    how = VERBS[verb]
    if how.kinds and free:
        words.kind = free.pop(0)
    names = [name for name in how.positional if name not in words.given]
    if len(free) > len(names):
        shown = positional(verb, words.kind).values()
        shape = " ".join((*(f"{{{','.join(how.kinds)}}}" for _ in how.kinds[:1]), *shown))
        raise UsageError(f"Unexpected {free[len(names)]!r}: expected `cmid {verb} {shape}` and options.")
    words.given |= dict(zip(names, free, strict=False))


def _overview() -> str:
    lines = [f"  {verb:<10}{_summary(verb)}" for verb in VERBS]
    return "\n".join(
        [
            "usage: cmid VERB ...",
            "",
            "From unlabelled overhead imagery to maps.",
            "",
            *lines,
            "",
            "cmid VERB --help tells more of each; cmid --version.",
        ]
    )


def _summary(verb: str) -> str:
    return (settings_class(verb).__doc__ or "").partition("\n")[0]


def _help(verb: str, named: str | None) -> str:
    from argparse import SUPPRESS, HelpFormatter

    from cmid.commands.settings import field_types, make_parser

    kind, how = settings_class(verb, named), VERBS[verb]
    defaults, known = kind(), field_types(kind)
    kinds = [each for each in how.kinds if each not in how.apart]
    leading = named if named in how.apart else f"{{{','.join(kinds)}}}" if kinds else ""
    parts = ["cmid", verb, *([leading] if leading else [])]
    parts += [word if getattr(defaults, name) == "" else f"[{word}]" for name, word in positional(verb, named).items()]
    parser = make_parser(
        kind,
        usage=" ".join([*parts, "[--setting value ...]"]),
        epilog=_others(verb, named) + (NOTES if how.recipes else NOTES.replace(OF_RECIPES, "")),
        formatter_class=lambda prog: HelpFormatter(prog, max_help_position=34),
    )
    if how.recipes:
        parser.add_argument("--recipe", metavar="NAME", help="Packaged settings; `cmid recipes` lists them.")
    wins = "; they win over a recipe" if how.recipes else ""
    parser.add_argument("--config", metavar="FILE.yaml", help=f"Your own settings{wins}.")
    for action in parser._actions:
        if action.dest in known:
            action.metavar = positional(verb, named).get(action.dest) or _placeholder(action.dest, known[action.dest])
            default = attrgetter(action.dest)(defaults)
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            shown = shown.lower() if isinstance(default, bool) else shown
            told = f"{action.help} [{shown}]" if default not in (None, "", ()) else str(action.help)
            action.help = told.replace("%", "%%")
        elif action.metavar == "CONFIG":  # a whole group in a file: --config does that
            action.help = SUPPRESS
    return parser.format_help().rstrip()


def _others(verb: str, named: str | None) -> str:
    """Where the help of the kinds is that have settings of their own."""
    others = [each for each in VERBS[verb].apart if each != named]
    return "".join(f"`cmid {verb} {each} --help` tells of {each}. " for each in others)


def _placeholder(name: str, wanted: Any) -> str:
    """What stands for a value in the help: choices, N for a whole number, X for a number, or the name."""
    inside = [each for each in get_args(wanted) if each not in (Ellipsis, type(None))]
    if get_origin(wanted) is Literal:
        return f"{{{','.join(inside)}}}"
    if get_origin(wanted) is tuple:
        return ",".join(_placeholder(name, each) for each in inside) + (",..." if Ellipsis in get_args(wanted) else "")
    if inside:
        return _placeholder(name, inside[0])
    return {int: "N", float: "X", bool: "{true,false}"}.get(wanted, name.rpartition(".")[2].upper())


def _stdout_is_closed() -> bool:
    """Whether the reader of our output went away; if so, what is still buffered goes nowhere."""
    out = sys.stdout.fileno()
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(out, 0)
        if not poll.poll(0):
            return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return True
