"""A disk that is really full: a small file system in memory, mounted for the test, that a run fills."""

import os
import shutil
import subprocess

import pytest

from cmid.errors import CmidError
from cmid.train import read_checkpoint

from .small_run import MemoryLoader, Probe, numbers, run_fit

SIZE = 2 << 20
FILLER = "filler"


@pytest.fixture
def disk(tmp_path):
    """A folder with a disk of its own, of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    with pytest.raises(OSError, match="No space left"), (folder / FILLER).open("wb", buffering=0) as file:
        for chunk in (4096, 64, 1):
            while True:
                try:
                    file.write(bytes(chunk))
                except OSError:
                    if chunk == 1:
                        raise
                    break


class Filling(MemoryLoader):
    """Fills the disk in epoch `full_in`, from 0, and makes room again in the fourth where `room` is set."""

    def __init__(self, disk, batches, room, full_in=1):
        super().__init__(batches)
        self.disk, self.room, self.full_in = disk, room, full_in

    def __iter__(self):
        for i, views in enumerate(super().__iter__()):
            if (self.epoch, i) == (self.full_in, 2):
                fill(self.disk)
            if self.room and (self.epoch, i) == (3, 1):
                (self.disk / FILLER).unlink()
            yield views


def test_a_run_goes_on_while_the_disk_is_full_and_catches_up(disk, tmp_path, capfd):
    run_fit(tmp_path / "elsewhere", epochs=5, batches=5)
    run_fit(disk / "run", epochs=5, loader=Filling(disk, 5, room=True))
    said = capfd.readouterr().err
    assert "could not be written (No space left on device); the one before is kept" in " ".join(said.split())
    for table in ("steps.csv", "metrics.csv"):
        assert numbers(disk / "run" / table) == numbers(tmp_path / "elsewhere" / table)
    assert read_checkpoint(disk / "run", lazy=False).progress.step == 25


def test_a_run_that_ends_on_a_full_disk_says_so_keeps_its_last_checkpoint_and_goes_on(disk, tmp_path):
    run_fit(tmp_path / "elsewhere", epochs=5, batches=5)
    with pytest.raises(CmidError, match=r"its last checkpoint .* could not be written: No space left.*--resume"):
        run_fit(disk / "run", epochs=5, loader=Filling(disk, 5, room=False))
    assert read_checkpoint(disk / "run", lazy=False).progress.step == 5  # whole, of the end of the first epoch
    (disk / FILLER).unlink()
    run_fit(disk / "run", epochs=5, batches=5, resume=True)
    for table in ("steps.csv", "metrics.csv"):
        assert numbers(disk / "run" / table) == numbers(tmp_path / "elsewhere" / table)


def test_a_run_that_never_had_room_for_a_checkpoint_is_not_told_to_go_on(disk):
    with pytest.raises(CmidError, match=r"could not be written: No space left on device\. There is none from before"):
        run_fit(disk / "run", epochs=1, loader=Filling(disk, 5, room=False, full_in=0))


def test_an_epoch_whose_checkpoint_could_not_be_written_does_not_stand_in_the_way_of_a_later_best(disk):
    probe = Probe(knn_top1=[1.0, 9.0, 1.5, 2.0, 1.7])  # the disk is full at the ends of the second and third epoch
    run_fit(disk / "run", epochs=5, loader=Filling(disk, 5, room=True), probes=[probe])
    best = read_checkpoint(disk / "run" / "checkpoints" / "best.ckpt").state
    assert best["best"] == {"name": "knn_top1", "value": 2.0, "epoch": 4}
    assert best["position"] == {"epoch": 4, "batch": 0}
    assert read_checkpoint(disk / "run").state["best"] == best["best"]
