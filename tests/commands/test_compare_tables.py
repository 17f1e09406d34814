"""The figures of a comparison's rows."""

import numpy as np

from cmid.commands import prepare
from cmid.commands.compare_tables import Line, figures_of


def test_an_external_row_is_compared_with_all_runs():
    right = {seed: {"kNN-5": np.full(4, share)} for seed, share in ((0, 0.5), (1, 1.0))}
    trained = Line("byol", "BYOL", "trained here", right, {})
    other = Line("file.pth", "file.pth", "external", {0: right[0]}, {})
    config = prepare("compare", {"data": "a", "labelled": "b"})
    assert figures_of([trained, other], "byol", config)["file.pth", "kNN-5"].difference.value == -25
    assert figures_of([trained, other], "file.pth", config)["byol", "kNN-5"].difference.value == 25
