"""Run by torchrun (or, it would seem, by SLURM) in two processes: what a team agrees on."""

import os

import torch
import torch.distributed as dist

from cmid.config import TrainConfig
from cmid.errors import CmidError, UsageError
from cmid.train import gather_team
from cmid.train.team import PATIENCE, Elsewhere


def main():
    team = gather_team(TrainConfig(accelerator="cpu", precision="32"))
    launcher = "torchrun" if "RANK" in os.environ else "SLURM"
    rank = int(os.environ["RANK" if launcher == "torchrun" else "SLURM_PROCID"])
    assert (team.rank, team.size, team.nodes, team.leads) == (rank, 2, 1, rank == 0)
    gloo = team._group._get_backend(torch.device("cpu"))
    assert gloo.options._timeout == PATIENCE  # not that of the gradients, which are in gloo here, too
    assert team.any(rank == 0, rank == 1, False, True) == (True, True, False, True)
    assert team.gather({rank: "a"}) == [{0: "a"}, {1: "a"}]
    assert team.of_leader(f"from {rank}") == "from 0"
    assert torch.equal(team.mean(torch.tensor([1.0 + rank, 3.0])), torch.tensor([1.5, 3.0]))
    with team.as_one():
        pass
    for failing, error in ((1, UsageError("bad rank")), (0, ValueError("worse")), (1, CmidError("both"))):
        try:
            with team.as_one():
                if rank == failing or "both" in str(error):
                    raise error
        except type(error) as caught:
            assert caught is error
        except Elsewhere as caught:
            assert rank != failing and f"Process {failing} of 2 has stopped: {error}" == str(caught)
            assert caught.exit_code == getattr(error, "exit_code", 1) and caught.quiet == (rank == 1)
        else:
            raise AssertionError("nobody heard of it")
    team.require_alike("train.precision", "bf16")
    try:
        team.require_alike("train.precision", ("bf16", "32")[rank])
    except UsageError as error:
        assert "train.precision auto means 32 and bf16 on the devices" in str(error) and error.quiet == (rank == 1)
    else:
        raise AssertionError("two precisions")
    try:
        gather_team(TrainConfig(accelerator="cpu", devices=3))
    except UsageError as error:
        assert f"{launcher} has started 1 x 2" in str(error)
    else:
        raise AssertionError("three of two")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
