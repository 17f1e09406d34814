"""Run by torchrun, two processes: each sees another folder under the same name, and both stop with one line."""

import contextlib
import io
import os
import sys
from pathlib import Path

from cmid.cli import main

rank = os.environ["RANK"]
os.chdir(Path(sys.argv[1]) / rank)
told = io.StringIO()
with contextlib.redirect_stderr(told):
    code = main(
        ["pretrain", "images", "--recipe", "cmid-tiny", "--no-report", "--train.accelerator", "cpu", "--out", "../run"]
    )
errors = [line for line in told.getvalue().splitlines() if line.startswith("cmid: error:")]
assert code == 2, (code, told.getvalue())
if rank == "0":
    assert len(errors) == 1, told.getvalue()
    assert "do not see the same data" in errors[0], errors
    assert "16 images in process 0, 24 in process 1" in errors[0], errors
else:
    assert not errors, "said twice"
assert not Path("../run").exists()
