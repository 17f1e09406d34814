"""`cmid doctor`: what is wrong with labelled pixels, said before anyone trains for a day.

Everything is read once: masks, images, and of a prepared set every file's check sum. What is not claimed: that the
bands of images are in the right order, of which the pixels do not tell.
"""

import json
from pathlib import Path

from rich.console import Console

from cmid.commands.diagnosis import Diagnosis, Unsound
from cmid.commands.doctor_folder import look_at_folder
from cmid.commands.doctor_named import look_at_named
from cmid.commands.doctor_prepared import look_at_prepared
from cmid.commands.terminal import terminal
from cmid.config import DoctorConfig
from cmid.data.prepared import is_prepared
from cmid.data.torchgeo_datasets import is_named
from cmid.errors import UsageError
from cmid.whole_files import write_whole


def doctor(config: DoctorConfig) -> Diagnosis:
    """Looks at `config.data`, shows what was found, and writes it to `config.out`.

    Raises:
        UsageError: nothing there that can be looked at.
        Unsound: something is wrong; it holds the diagnosis.
    """
    out = Path(config.out) if config.out else None
    if out is not None and out.exists():
        raise UsageError(f"{out} exists: give another name for what is found")
    progress = terminal()
    if is_named(config.data):
        found = look_at_named(config, progress)
    elif is_prepared(Path(config.data)):
        found = look_at_prepared(config, progress)
    else:
        found = look_at_folder(config, progress)
    found.show(Console(highlight=False, markup=False))
    if out is not None:
        text = json.dumps(found.to_plain(), indent=1, ensure_ascii=False)
        write_whole(out, lambda path: path.write_text(text, encoding="utf-8"), advice="Choose another --out")
    if found.wrong:
        raise Unsound(found)
    return found
