"""What several files here look at."""

import pytest

from tests.train.runs_in_processes import ALONE, run


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    code, _, errors = run(ALONE, out)
    assert code == 0, errors
    return out
