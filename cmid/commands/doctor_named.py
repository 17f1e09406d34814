"""What is wrong with one of torchgeo's data sets that has a class for each pixel."""

import numpy as np
from rich.console import Console

from cmid.commands.diagnosis import Diagnosis
from cmid.commands.pixel_sources import open_pixel_labelled
from cmid.commands.sources import progress
from cmid.config import DoctorConfig
from cmid.data.decode import BadImage


def look_at_named(config: DoctorConfig, console: Console) -> Diagnosis:
    """All findings of a data set, after reading all of it; raises `UsageError` where it cannot be opened."""
    found = Diagnosis(config.data)
    sides = open_pixel_labelled(config.data, config.labels, config.seed)
    found.classes = sides.train.classes
    for note in sides.notes:
        found.add("fine" if "to train on" in note else "look", "data set", note)
    bad: list[str] = []
    for side, source in (("train", sides.train), ("test", sides.test)):
        counts = np.zeros(256, np.int64)
        with progress(console, f"reading {side}") as tick:
            for i in range(len(source)):
                try:
                    counts += np.bincount(source.read(i).labels.reshape(-1), minlength=256)
                except BadImage as error:
                    bad.append(str(error))
                if tick is not None:
                    tick(i + 1, len(source))
        found.pixels[side] = dict(zip(found.classes, counts.tolist(), strict=False)) | {"": int(counts[255])}
        found.images[side] = len(source)
    if bad:
        found.add("wrong", "unreadable", f"{len(bad)} images or masks cannot be read, or hold no class's number", bad)
    else:
        found.add("fine", "unreadable", "every image and mask can be read")
    found.weigh_classes()
    return found
