"""What several runs say together that differ in their seed alone."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from cmid.errors import CmidError, UsageError
from cmid.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class SeedSummary:
    """One figure over runs, in the unit of its values.

    Attributes:
        runs: how many.
        mean: of the runs.
        std: of the sample (divided by runs - 1); NaN for one run.
        low: lower end of the interval; NaN where there is none.
        high: upper end.
        level: how often such an interval covers what it is of.
        of: what the interval is of. `seeds`: Student's t, the mean of more runs, on the same images where lists say
            which, else each on its own seed's split. `images`: the bootstrap of a single run, the same run on more
            images. `nothing`: one run, no interval. The two differ: never set them side by side without the word.
    """

    runs: int
    mean: float
    std: float
    low: float
    high: float
    level: float
    of: Literal["seeds", "images", "nothing"]

    def to_plain(self) -> dict[str, Any]:
        """Numbers and text for JSON; what is undefined is None."""
        return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in asdict(self).items()}


def summarise_seeds(
    values: Sequence[float],
    images: Interval | None = None,
    level: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> SeedSummary:
    """Mean, spread and interval of one figure over runs.

    Args:
        values: one for each run, all in one unit.
        images: of a single run, the bootstrap's interval over its test images in that unit; not used for several.
        level: of Student's interval, inside 0 to 1; the bootstrap's keeps its own.
        within: the least and greatest that the figure can be: Student's interval knows no bounds and is cut there.

    Raises:
        UsageError: no run, a level outside 0 to 1, or an interval of another figure than the run's.
        CmidError: a figure that is not finite, as of a run that diverged.
    """
    if not len(values) or not 0 < level < 1:
        raise UsageError(f"expected at least one run and a level inside 0 to 1, found {len(values)} and {level:g}")
    runs = np.asarray(values, dtype=np.float64)
    if bad := np.flatnonzero(~np.isfinite(runs)).tolist():
        raise CmidError(
            f"expected a finite figure of every run, found {runs[bad[0]]} of run {bad[0]}: repeat or omit it"
        )
    mean = float(runs.mean())
    if len(runs) > 1:
        from scipy.stats import t  # slow to import

        std = float(runs.std(ddof=1))
        reach = float(t.ppf((1 + level) / 2, len(runs) - 1)) * std / math.sqrt(len(runs))
        low, high = max(mean - reach, within[0]), min(mean + reach, within[1])
        return SeedSummary(len(runs), mean, std, low, high, level, "seeds")
    if images is None:
        return SeedSummary(1, mean, math.nan, math.nan, math.nan, level, "nothing")
    if not math.isclose(images.value, mean, rel_tol=1e-6, abs_tol=1e-9):
        raise UsageError(
            f"expected the interval of the run's own figure {mean:g}, found that of {images.value:g}: give both in "
            "one unit, as shares or in percent"
        )
    return SeedSummary(1, mean, math.nan, images.low, images.high, images.level, "images")
