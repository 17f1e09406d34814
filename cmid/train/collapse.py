"""Says in words when features collapse, from what a probe measured."""

import math
from collections.abc import Callable, Mapping, Sequence

STD_KEY, RANK_KEY = "feature_std", "effective_rank"
LEAST_STD = 1e-3  # a tenth of what trained 2048-wide features after a ReLU have
LEAST_RANK = 2.0  # at 1 every image has the same direction
LEAST_SHARE_OF_STD, LEAST_SHARE_OF_RANK = 0.2, 0.1  # of the best this run has shown


def collapse_warning(values: Mapping[str, float], earlier: Sequence[Mapping[str, float]] = ()) -> str | None:
    """What is wrong with the features, and what to try; None where nothing is.

    Args:
        values: what probes gave this epoch; read are `feature_std` (standard deviation over images of L2-normalised
            features, mean over dimensions) and `effective_rank` (directions in use).
        earlier: the same of earlier epochs, since a fall tells more than a level.
    """
    signs = []
    for key, words, least, share in (
        (STD_KEY, "the spread of features over images (feature_std)", LEAST_STD, LEAST_SHARE_OF_STD),
        (RANK_KEY, "the number of directions in use (effective_rank)", LEAST_RANK, LEAST_SHARE_OF_RANK),
    ):
        if key not in values:
            continue
        value = values[key]
        best = max((e[key] for e in earlier if key in e and math.isfinite(e[key])), default=0.0)
        if not math.isfinite(value):
            signs.append(f"{words} is {value}")
        elif value < least:
            signs.append(f"{words} is {value:.3g}, near nothing")
        elif value < share * best:
            signs.append(f"{words} fell from {best:.3g} to {value:.3g}")
    if not signs:
        return None
    return (
        f"Features are collapsing: {' and '.join(signs)}. Different images get nearly the same features, and what is "
        "learned from here on will be of little use. Try a lower learning rate, a longer warm-up or a larger batch."
    )


def warn_of_collapse(
    values: Mapping[str, float], earlier: Sequence[Mapping[str, float]] = (), say: Callable[[str], object] = print
) -> bool:
    """Prints `collapse_warning` by `say`; True where there was one."""
    text = collapse_warning(values, earlier)
    if text:
        say(f"Warning: {text}")
    return text is not None
