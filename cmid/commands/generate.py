"""`cmid generate`: draw overhead scenes from a seed, with labels for every task.

The layout on disk is described in `cmid.data.generated.files`. Scene i depends on the seed, i and the size alone,
so more scenes, or other workers, leave those already seen as they were.
"""

import os
import shlex
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cmid.commands.out_folder import held
from cmid.config import GenerateConfig
from cmid.data.generated import SMALLEST_PX, make_folders, write_classes, write_index, write_scene
from cmid.data.generated.files import ImageFormat
from cmid.errors import CmidError, UsageError
from cmid.folder_lock import LOCK

CHUNK = 24
"""Scenes a worker draws before it reports; two rounds of the scene classes."""

LARGEST_PX = 16_384
"""Longest side of a scene, which is drawn in one piece: some 10 GB."""


@dataclass(frozen=True)
class GenerateResult:
    """What was generated.

    Attributes:
        out: the folder.
        images: `out / "images"`, what pre-training reads.
        count: scenes written.
        classes: scenes of each class.
        seconds: wall time.
    """

    out: Path
    images: Path
    count: int
    classes: dict[str, int]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Scenes a second, each with both dates and all labels."""
        return self.count / max(self.seconds, 1e-9)


def generate(config: GenerateConfig) -> GenerateResult:
    """Writes `config.count` scenes with their labels under `config.out`.

    Raises:
        UsageError: a size under 64 px, no scenes asked for, a folder that holds files or cannot be written.
        CmidError: writing failed on the way, or a worker died.
    """
    out = _check(config)
    workers = min(config.workers if config.workers > 0 else _cores(), -(-config.count // CHUNK))
    spans = [range(start, min(start + CHUNK, config.count)) for start in range(0, config.count, CHUNK)]
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    console = Console(stderr=True)
    columns = (
        TextColumn("drawing scenes"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    try:
        with held(out, "another `cmid generate`"):
            make_folders(out)
            write_classes(out)
            with Progress(*columns, console=console) as progress:
                task = progress.add_task("", total=config.count, rate="")
                for part in _parts(out, config, spans, workers):
                    rows += part
                    rate = f"{len(rows) / (time.monotonic() - started):.0f} images/s"
                    progress.update(task, completed=len(rows), rate=rate)
            # Last: a folder with this file is complete.
            write_index(out, rows)
    except OSError as error:
        raise CmidError(
            f"writing the scenes under {out} failed: {error}; free the disk or choose another folder, "
            "delete what was begun there, and generate again"
        ) from error
    except TerminatedWorkerError as error:
        raise CmidError(
            "a worker process was killed while drawing scenes, mostly for want of memory; "
            f"delete {out} and generate again with fewer workers"
        ) from error
    classes = Counter(row["class"] for row in rows)
    result = GenerateResult(out, out / "images", len(rows), dict(classes), time.monotonic() - started)
    console.print(
        f"{result.count} scenes of {len(classes)} kinds in {result.seconds:.1f} s under {out}; "
        f"look at {result.images}, pre-train with: {shlex.join(('cmid', 'pretrain', str(result.images)))}",
        soft_wrap=True, highlight=False, markup=False,
    )  # fmt: skip
    return result


def _parts(out: Path, config: GenerateConfig, spans: list[range], workers: int) -> Any:
    """The rows of each span of scenes, as they are done."""
    arguments = [(out, config.seed, span, config.size, config.image_format) for span in spans]
    if workers <= 1:
        yield from (_write_span(*these) for these in arguments)
        return
    try:
        pool = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
        yield from pool(joblib.delayed(_write_span)(*these) for these in arguments)
    finally:
        # joblib would keep the workers for the next call; the next step wants the cores.
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _write_span(out: Path, seed: int, span: range, size: int, image_format: ImageFormat) -> list[dict[str, Any]]:
    return [write_scene(out, seed, index, size, image_format) for index in span]


def _check(config: GenerateConfig) -> Path:
    """The folder to write, made; raises `UsageError` for what cannot be done."""
    if config.size < SMALLEST_PX:
        raise UsageError(f"size is {config.size}; scenes need at least {SMALLEST_PX} px to show anything")
    if config.size > LARGEST_PX:
        raise UsageError(f"size is {config.size}; a scene is drawn in memory, and may have {LARGEST_PX:,} px a side")
    if config.count < 1:
        raise UsageError(f"count is {config.count}; ask for at least one scene")
    if config.workers == 0 or config.workers < -1:
        raise UsageError(f"workers is {config.workers}; give a number from 1, or -1 for one per core")
    if config.image_format not in ("jpg", "png", "tif"):
        raise UsageError(f"image_format is {config.image_format!r}; expected jpg, png or tif")
    out = Path(config.out)
    try:
        found = next((path for path in out.iterdir() if path.name != LOCK), None) if out.is_dir() else None
        if found is not None:
            state = "a complete set of scenes" if (out / "scenes.csv").is_file() else f"files ({found.name} ...)"
            begun = not (out / "scenes.csv").is_file() and (out / "classes.json").is_file()
            state = "an interrupted generate (no scenes.csv)" if begun else state
            raise UsageError(f"{out} holds {state}; delete it or give another folder with --out")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror or error}; give another folder with --out") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {out}: permission denied; give another folder with --out")
    return out


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
