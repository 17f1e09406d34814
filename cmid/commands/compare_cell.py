"""One run of a comparison, in a process of its own, so that its memory is its own and its death ends nothing else.

    python -m cmid.commands.compare_cell SETTINGS.yaml CELL.json

The exit code is that of `cmid pretrain`. CELL.json is written at the end: what became of the run, and what it took.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from cmid.commands.pretrain import pretrain
from cmid.commands.settings import resolve
from cmid.config import PretrainConfig
from cmid.errors import CmidError, UsageError
from cmid.train import RunDirectory


def main(settings: Path, result: Path) -> int:
    """Trains, or goes on training; writes `result` unless it was interrupted or failed for want of something."""
    config = resolve(PretrainConfig, config=settings)
    run = RunDirectory(config.out)
    config = replace(config, resume=run.path.is_dir())
    begin = time.monotonic()
    try:
        done = pretrain(config)
    except UsageError as error:
        print(f"cmid: error: {error}", file=sys.stderr)
        return 2
    except CmidError as error:
        if run.nonfinite.is_file():
            _write(result, {"status": "diverged", "reason": str(error)})
            return 0
        print(f"cmid: error: {error}", file=sys.stderr)
        return int(getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        return 130
    _write(
        result,
        {
            "status": "trained",
            "images_per_s": done.fit.images_per_s,
            "epochs": done.fit.epochs_done,
            "steps": done.fit.steps_done,
            "seconds_of_last_session": round(time.monotonic() - begin, 1),
            "gpu_peak_gb": _gpu_peak_gb(),
        },
    )
    return 0


def _gpu_peak_gb() -> float | None:
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def _write(path: Path, content: dict[str, object]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
