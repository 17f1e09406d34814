"""What a process ends with."""

import os

import pytest

from cmid.errors import LEADER, CmidError, UsageError, exit_code


@pytest.mark.parametrize(
    ("started_by", "quiet", "expected"), [(None, True, 2), ("me", True, 2), ("1", True, 0), ("1", False, 2)]
)
def test_one_that_another_has_started_and_tells_of_ends_with_0(monkeypatch, started_by, quiet, expected):
    monkeypatch.delenv(LEADER, raising=False)
    if started_by:
        monkeypatch.setenv(LEADER, str(os.getpid()) if started_by == "me" else started_by)
    error = UsageError("told elsewhere")
    error.quiet = quiet
    assert exit_code(error) == expected
    assert exit_code(CmidError("mine")) == 1
