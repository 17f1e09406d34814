"""One run of a comparison, in a process of its own, so that its memory is its own and its death ends nothing else.

    python -m cmid.commands.compare_cell SETTINGS.yaml CELL.json

The exit code is that of `cmid pretrain`. CELL.json is written at the end: what became of the run, and what it took.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmid.commands.pretrain import pretrain
from cmid.commands.settings import resolve
from cmid.config import PretrainConfig
from cmid.errors import CmidError, NotFinite
from cmid.report.curves import read_table
from cmid.train import RunDirectory
from cmid.train.memory import peak_memory_gb
from cmid.whole_files import write_whole


def main(settings: Path, result: Path) -> int:
    """Trains, or goes on training; writes `result` unless it was interrupted or failed for want of something."""
    try:
        config = resolve(PretrainConfig, config=settings)
        run = RunDirectory(config.out)
        done = pretrain(replace(config, resume=run.path.is_dir()))
    except NotFinite as error:
        write_result(result, {"status": "diverged", "reason": str(error)})
        return 0
    except CmidError as error:
        print(f"cmid: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    write_result(
        result,
        {
            "status": "trained",
            "images_per_s": _median_pace(run),
            "epochs": done.fit.epochs_done,
            "steps": done.fit.steps_done,
            "peak_memory_gb": None if math.isnan(peak := peak_memory_gb()) else peak,
        },
    )
    return 0


def _median_pace(run: RunDirectory) -> float | None:
    """Images a second over all sessions of the run."""
    paces = read_table(run.steps).get("images_per_s")
    return None if paces is None or np.isnan(paces).all() else float(np.nanmedian(paces))


def write_result(path: Path, content: Mapping[str, object]) -> None:
    """What became of a run, whole or not at all; raises `CmidError`."""
    said = json.dumps(content, indent=1) + "\n"
    write_whole(path, lambda part: part.write_text(said), advice="Make room, and run the same again.")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
