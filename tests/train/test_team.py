import pytest
import torch

from cmid.errors import CmidError
from cmid.train.team import Team


def test_two_processes_agree(two_processes):
    two_processes("tests.train.team_in_two_processes")


def test_alone_everything_is_ones_own():
    team = Team()
    assert (team.rank, team.size, team.leads) == (0, 1, True)
    assert team.any(True, False) == (True, False) and team.gather(3) == [3] and team.of_leader("a") == "a"
    values = torch.ones(2)
    assert team.mean(values) is values
    with pytest.raises(CmidError, match="mine"), team.as_one():
        raise CmidError("mine")
