"""What a process ends with, and how errors are told apart."""

import os

import numpy as np
import pytest
import torch

from cmid.errors import LEADER, CmidError, UsageError, exit_code, is_out_of_memory


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


@pytest.mark.parametrize("ask", [lambda: np.empty(1 << 60, np.uint8), lambda: torch.empty(1 << 60)])
def test_a_lack_of_memory_is_told_from_other_errors(ask):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        ask()
    assert is_out_of_memory(caught.value)
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not is_out_of_memory(other.value) and not is_out_of_memory(ValueError("cannot allocate"))
