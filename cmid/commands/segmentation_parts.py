"""What a segmentation run is made of: images, weights, the segmenter and its loader, before anything is trained."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console

from cmid.backbones import create_backbone
from cmid.commands.compare_plan import digest
from cmid.commands.fingerprint import fingerprint
from cmid.commands.image_scale import check_size
from cmid.commands.pixel_scale import bring_to_scale, measured, read_by_name
from cmid.commands.pixel_sources import PixelSides, open_pixel_labelled
from cmid.commands.segment_images import HowToLook
from cmid.commands.sources import progress
from cmid.commands.weights import resolve_weights
from cmid.config import EvaluateConfig, FinetuneSegmentationConfig, ViewConfig
from cmid.contracts import Backbone
from cmid.data.decode import BadImage
from cmid.data.photometric import LabelledBatch
from cmid.data.pixel_crops import PixelBatches
from cmid.data.pixel_labels import UNLABELLED, PixelSource
from cmid.data.pixel_subsets import PixelSubset, held_out, share_of
from cmid.data.views import ViewLoader
from cmid.errors import UsageError, did_you_mean
from cmid.tasks.segmentation import Segmenter
from cmid.train import Team, resolve_device
from cmid.zoo.backbone_files import BackboneMetadata
from cmid.zoo.segmenter_files import load_segmenter, segmenter_file

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
COUNTED = 500
"""Training images whose pixels are counted for the weights of the classes."""
RAREST = 10.0
"""How much more a pixel of the rarest class may count than one of the commonest."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of, once its data and weights have been opened."""

    config: FinetuneSegmentationConfig
    sides: PixelSides
    train: PixelSource
    validation: PixelSource | None
    test: PixelSource
    backbone: Backbone
    metadata: BackboneMetadata
    weights: str
    begun: Segmenter | None = None
    notes: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = field(default=())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.train.classes

    @property
    def untrained(self) -> tuple[int, ...]:
        """Positions of the classes that are not learned."""
        return tuple(self.classes.index(name) for name in self.config.segmenter.untrained)

    def look(self, precision: Any) -> HowToLook:
        """How test images are looked at."""
        assert self.metadata.mean is not None and self.metadata.std is not None
        return HowToLook(
            self.metadata.mean, self.metadata.std, self.config.size, self.config.window,
            batch_size=self.config.batch_size, workers=self.config.train.workers, precision=precision,
            read_timeout_s=self.config.read_timeout_s,
        )  # fmt: skip


def open_parts(config: FinetuneSegmentationConfig, console: Console) -> Parts:
    """Data, weights, and the settings that follow from them."""
    if config.batch_size < 2 and config.segmenter.head == "upernet":
        raise UsageError(
            f"batch_size is {config.batch_size}, but upernet pools to one position, whose batch-norm needs two images: "
            "take 2 or more, or --segmenter.head lateral_sum"
        )
    sides = open_pixel_labelled(config.data, config.labels, config.seed, console)
    train, test = sides.train, sides.test
    for name in config.segmenter.untrained:
        if name not in train.classes:
            raise UsageError(
                f"segmenter.untrained names {name!r}, which is no class of {config.data}."
                f"{did_you_mean(name, train.classes)} There are {', '.join(train.classes)}."
            )
    if len(train.classes) - len(config.segmenter.untrained) < 2:
        raise UsageError(f"{config.data} has {len(train.classes)} classes; a segmenter tells 2 or more apart")
    backbone, metadata, weights, begun = _weights(config, (train, test))
    metadata = measured(train, metadata, config, console)
    mean, std = config.mean or metadata.mean, config.std or metadata.std
    if mean is None and std is None and train.bands == 3:
        mean, std = IMAGENET
    if mean is None or std is None or len(mean) != train.bands or len(std) != train.bands:
        raise UsageError(
            f"mean and std need {train.bands} values each, and {weights} does not say them: give --mean and --std"
        )
    notes = list(sides.notes)
    if metadata.bands and _told(metadata.bands) != _told(train.names):
        notes.append(
            f"{weights} was trained on the bands {', '.join(metadata.bands)}; these are {', '.join(train.names)}"
        )
    metadata = replace(metadata, mean=tuple(mean), std=tuple(std), size=config.size, bands=train.names)
    bring_to_scale((train, test), metadata, config.data)
    check_size(config.size, backbone)
    fixed = getattr(backbone, "fixed_size", None)
    if fixed is not None and config.window not in (0, fixed[0]):
        raise UsageError(f"window is {config.window}, but {metadata.backbone} takes images of {fixed[0]} px only")
    validation: PixelSource | None = None
    if config.hold_out:
        train, validation, by = held_out(train, config.hold_out, config.seed)
        notes.append(f"held out for validation: {len(validation)} images, {by}")
    if config.train_share < 1:
        train = share_of(train, config.train_share, config.seed)
    return Parts(config, sides, train, validation, test, backbone, metadata, weights, begun, tuple(notes))


def _weights(
    config: FinetuneSegmentationConfig, sides: tuple[PixelSource, PixelSource]
) -> tuple[Backbone, BackboneMetadata, str, Segmenter | None]:
    """The backbone that `config.weights` means, what is known of it, where it is from, and its heads where it has some.

    Bands are read by the names that the weights know them by, where the images have them and the settings choose none.

    Raises:
        UsageError: as `resolve_weights`; or a segmenter of other classes or bands.
    """
    train, path = sides[0], segmenter_file(config.weights)

    def bands_of(metadata: BackboneMetadata) -> int:
        if not config.labels.bands:
            read_by_name(sides, metadata.bands or ())
        return train.bands

    if path is None:
        asked = EvaluateConfig(weights=config.weights, data=config.data, backbone=config.backbone, seed=config.seed)
        found, metadata, weights = resolve_weights(replace(asked, size=config.size), train.bands, bands_of)
        begun = None
    else:
        begun, about = load_segmenter(path)
        found, metadata, weights = begun.backbone, about.backbone, str(path)
        if config.backbone not in (None, metadata.backbone):
            raise UsageError(f"{path} holds {metadata.backbone}, but {config.backbone} was asked for: leave it out")
        if metadata.in_chans != (here := bands_of(metadata)):
            raise UsageError(f"{path} is for {metadata.in_chans} bands, but the images have {here}")
        if not config.new_head and about.classes != train.classes:
            theirs, ours = (f"{len(n)} classes ({', '.join(n[:4])} ...)" for n in (about.classes, train.classes))
            raise UsageError(
                f"{path} is a segmenter of {theirs}, but {config.data} has {ours}: --new_head begins the heads anew "
                "and keeps the backbone"
            )
        s = config.segmenter
        if not config.new_head and (about.head, about.width) != (s.head, s.width or about.width):
            raise UsageError(
                f"{path} has the head {about.head} of {about.width} channels, but "
                f"{s.head}{f' of {s.width}' if s.width else ''} is asked for: give --segmenter.head and .width as "
                "there, or --new_head"
            )
        begun = None if config.new_head else begun
    backbone = create_backbone(
        metadata.backbone, metadata.in_chans, mask_stage=None, drop_path=config.drop_path, img_size=config.size
    )
    backbone.load_weights(found.weights())  # random ones, too: those are drawn by the seed
    return backbone, metadata, weights, begun


def with_class_weights(parts: Parts, console: Console) -> Parts:
    """The parts with the weights of the classes counted, where the settings ask for them."""
    if parts.config.segmenter.class_weights == "none":
        return parts
    count = min(COUNTED, len(parts.train))
    drawn = np.random.default_rng(parts.config.seed).choice(len(parts.train), count, replace=False)
    pixels = np.zeros(UNLABELLED + 1, np.int64)
    with progress(console, "counting pixels") as tick:
        for done, i in enumerate(sorted(drawn.tolist()), 1):
            try:
                pixels += np.bincount(parts.train.read(i).labels.ravel(), minlength=len(pixels))
            except BadImage:
                continue  # the loader counts and tells it
            finally:
                if tick is not None:
                    tick(done, count)
    return replace(parts, class_weights=balanced(pixels[: len(parts.classes)], parts.untrained))


def balanced(pixels: np.ndarray, untrained: tuple[int, ...] = ()) -> tuple[float, ...]:
    """How much a pixel of each class counts: the inverse of its share, within `RAREST`; a mean pixel counts 1.

    Args:
        pixels: `(K,)` of each class.
        untrained: classes that do not count.
    """
    kept = pixels.astype(float)
    kept[list(untrained)] = 0
    if not kept.sum():
        return (1.0,) * len(kept)
    floor = kept.max() / RAREST
    weights = 1 / np.maximum(kept, floor)
    return tuple((weights * kept.sum() / (weights * kept).sum()).tolist())


def build_segmenter(parts: Parts) -> Segmenter:
    """Backbone and heads; their first weights come from torch's default generator, or from the segmenter given."""
    s = parts.config.segmenter
    learner = Segmenter(
        parts.backbone, len(parts.classes), head=s.head, width=s.width, dropout=s.dropout,
        auxiliary_weight=s.auxiliary_weight, frozen=parts.config.frozen, ignore=UNLABELLED,
        class_weights=torch.tensor(parts.class_weights) if parts.class_weights else None, average=s.average,
        cross_entropy=s.cross_entropy, focal=s.focal, gamma=s.gamma, dice=s.dice,
    )  # fmt: skip
    if parts.begun is not None:
        for name in ("levels", "decoder", "scores"):
            getattr(learner, name).load_state_dict(getattr(parts.begun, name).state_dict())
    return learner


def build_loader(parts: Parts, team: Team) -> tuple[ViewLoader, LabelledBatch]:
    """Batches of crops with labels, and what is done to them on the device."""
    config, source = parts.config, parts.train
    mean, std = parts.metadata.mean, parts.metadata.std
    assert mean is not None and std is not None
    least = 2 if config.segmenter.head == "upernet" else 1
    loader = ViewLoader(
        source,  # type: ignore[arg-type]  # PixelBatches reads it
        ViewConfig(size=config.size, mean=mean, std=std),
        batch_size=min(config.batch_size, max(least, len(source) // team.size)),
        seed=config.seed,
        workers=config.train.workers,
        crops=1,
        rank=team.rank,
        world_size=team.size,
        max_bad_share=config.max_bad_share,
        read_timeout_s=config.read_timeout_s,
        pin_memory=resolve_device(config.train.accelerator).type == "cuda",
        batches=partial(PixelBatches, pixel_crops=config.crops, untrained=parts.untrained),
        fingerprint=_fingerprint(parts),
    )
    rgb = source.bands == 3 and source.dtype == torch.uint8
    return loader, LabelledBatch(mean, std, config.crops, rgb=rgb)


def _fingerprint(parts: Parts) -> str:
    """Changes with the images' names and order, and with what the numbers of their labels mean."""
    names = fingerprint(parts.train)  # type: ignore[arg-type]  # of their names alone
    meaning = [parts.classes, parts.untrained, parts.sides.account.get("palette"), parts.config.labels.unlabelled]
    return digest([names, meaning])


def _told(bands: tuple[str, ...]) -> list[str]:
    return [name.casefold() for name in bands]


def account_of(parts: Parts) -> dict[str, Any]:
    """The split as it was used, and what the backbone is: kept in the run as data.json."""
    sides = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {
        "backbone": asdict(parts.metadata) | {"weights": parts.weights},
        "root": os.path.realpath(parts.config.data),
        "classes": list(parts.classes),
        "colours": [list(each) for each in parts.train.colours],
        "class_weights": list(parts.class_weights),
        "labels": dict(parts.sides.account),
        "split": {k: [s.name(i) for i in range(len(s))] for k, s in sides.items() if s is not None},
    }


def told(parts: Parts) -> str:
    """The run in a line, before it begins."""
    validation = "" if parts.validation is None else f", {len(parts.validation)} for validation"
    width = parts.config.segmenter.width
    return (
        f"segmentation of {len(parts.classes)} classes: {len(parts.train)} images to train on{validation}, "
        f"{len(parts.test)} to test; {parts.config.segmenter.head}{f' of {width} channels' if width else ''} on "
        f"{parts.metadata.backbone} from {parts.weights}, crops of {parts.config.size} px"
        + (", backbone frozen" if parts.config.frozen else "")
    )


def notes_on(parts: Parts) -> Iterator[str]:
    """What the user should hear, one sentence each."""
    yield from parts.notes
    if parts.begun is not None:
        yield f"{parts.weights} is a segmenter of these classes: its heads are trained further (--new_head begins anew)"
    if parts.config.segmenter.untrained:
        yield f"not learned, but given an output: {', '.join(parts.config.segmenter.untrained)}"
    if isinstance(parts.train, PixelSubset) and parts.config.train_share < 1:
        yield f"trained on {parts.config.train_share:.0%} of the training images, drawn by seed {parts.config.seed}"
    if parts.train.bands != 3 or parts.train.dtype != torch.uint8:
        yield "these are not three 8-bit colours: hue and saturation stay, gain and offset change each band by itself"
    if parts.class_weights:
        shown = (f"{n} {w:.2f}" for n, w in zip(parts.classes, parts.class_weights, strict=True))
        yield f"a pixel counts: {', '.join(shown)}"
