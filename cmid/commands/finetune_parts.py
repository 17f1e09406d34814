"""What a fine-tuning run is made of: images, weights, the classifier and its loader, before anything is trained."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmid.backbones import create_backbone
from cmid.commands.fingerprint import fingerprint, label_fingerprint
from cmid.commands.image_scale import (
    check_readable,
    check_size,
    labelled_notes,
    measured_on,
    other_bands,
    put_on_scale,
    told_names,
)
from cmid.commands.sources import open_labelled
from cmid.commands.twins import Twins, without_twins
from cmid.commands.weights import resolve_weights
from cmid.config import EvaluateConfig, FinetuneConfig, ViewConfig
from cmid.contracts import Backbone
from cmid.data.few_labels import check_tells_apart, few_of_each, held_out, missing_classes
from cmid.data.images import ImageLoader
from cmid.data.mixing import RandAugment, TrainingBatch
from cmid.data.sources import LabelledSource, is_multi_label
from cmid.data.torchgeo_datasets import is_named
from cmid.data.views import ViewLoader
from cmid.errors import UsageError
from cmid.ops.normalise import normalise
from cmid.ops.transfer import to_device
from cmid.tasks.classification import Classifier
from cmid.train import Team, resolve_device
from cmid.zoo.backbone_files import BackboneMetadata
from cmid.zoo.classifier_files import classifier_file, load_classifier

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BATCH = 64
"""Test images at once."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of, once its data and weights have been opened."""

    config: FinetuneConfig
    train: LabelledSource
    validation: LabelledSource | None
    test: LabelledSource
    backbone: Backbone
    metadata: BackboneMetadata
    weights: str
    twins: Twins
    head: dict[str, Tensor] | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image may be of several classes."""
        return is_multi_label(self.train)

    @property
    def size(self) -> int:
        """Side of the crops in pixels."""
        assert self.metadata.size is not None
        return self.metadata.size


def open_parts(config: FinetuneConfig) -> Parts:
    """Data, weights, and the settings that follow from them."""
    if config.batch_size < 2:
        raise UsageError(f"batch_size must be at least 2 (batch-norm needs two images), found {config.batch_size}")
    train, test = open_labelled(config.data, config.train_list, config.test_list, config.seed)
    check_readable((train, test), config.max_bad_share, config.data)
    absent = missing_classes(train.labels, train.classes)
    unknown = [name for name in absent if name not in missing_classes(test.labels, test.classes)]
    if unknown:
        raise UsageError(
            f"{len(unknown)} classes have test images but none to learn from: {', '.join(unknown[:5])}. Move some to "
            "the training list, or take the classes out"
        )
    if is_multi_label(train) and config.published_protocol:
        raise UsageError(
            f"the published protocol is for one class an image, and those of {config.data} may be of several"
        )
    if config.published_protocol and len(test) < BATCH:
        raise UsageError(
            f"the published protocol counts full batches of {BATCH} test images alone, and {config.data} has "
            f"{len(test)}: leave published_protocol out, or test on {BATCH} or more"
        )
    if is_multi_label(test) and not test.labels.any():
        raise UsageError(f"no test image of {config.data} is of any class: there would be nothing to measure")
    check_tells_apart(train, config.data)
    frozen, metadata, weights, head = _weights(config, train)
    if metadata.which == "random" or metadata.mean is None:  # others know a scale, and are held to it
        metadata = measured_on(train, metadata, config.seed)
    mean, std = config.mean or metadata.mean, config.std or metadata.std
    if mean is None and std is None and train.bands == 3:
        mean, std = IMAGENET
    if mean is None or std is None or len(mean) != train.bands or len(std) != train.bands:
        raise UsageError(
            f"mean and std need {train.bands} values each, and {weights} does not say them: give --mean and --std"
        )
    put_on_scale((train, test), replace(metadata, mean=tuple(mean)), config.data)
    metadata = replace(metadata, bands=metadata.bands or told_names(train))
    size = config.size or metadata.size or 224
    backbone = create_backbone(
        metadata.backbone, metadata.in_chans, mask_stage=None, drop_path=config.drop_path, img_size=size
    )
    check_size(size, backbone)
    backbone.load_weights(frozen.weights())  # random ones, too: those are drawn by the seed
    validation: LabelledSource | None = None
    if config.hold_out:
        train, validation = held_out(train, config.hold_out, config.seed)
    if config.per_class:
        train = few_of_each(train, config.per_class, config.seed)
    metadata = replace(metadata, mean=tuple(mean), std=tuple(std), size=size)
    return Parts(config, train, validation, test, backbone, metadata, weights, Twins(), head)


def _weights(
    config: FinetuneConfig, train: LabelledSource
) -> tuple[Backbone, BackboneMetadata, str, dict[str, Tensor] | None]:
    """The backbone that `config.weights` means, what is known of it, where it is from, and its head where it has one.

    Raises:
        UsageError: as `resolve_weights`; or a classifier of other classes or bands.
    """
    path, files = classifier_file(config.weights), not is_named(config.data)
    if path is None:
        asked = EvaluateConfig(weights=config.weights, data=config.data, backbone=config.backbone, seed=config.seed)
        return *resolve_weights(replace(asked, size=config.size), train.bands, files=files), None
    classifier, about = load_classifier(path)
    b = about.backbone
    if config.backbone not in (None, b.backbone):
        raise UsageError(f"{path} holds {b.backbone}, but {config.backbone} was asked for: leave backbone out.")
    if b.in_chans != train.bands:
        raise other_bands(str(path), b.in_chans, train.bands, config.data, files=files)
    if config.new_head:
        return classifier.backbone, b, str(path), None
    if about.multi_label != is_multi_label(train):
        one, several = "one class an image", "several classes an image"
        theirs, ours = (several, one) if about.multi_label else (one, several)
        raise UsageError(f"{path} is a classifier of {theirs}, but {config.data} has {ours}: --new_head begins anew.")
    if about.classes != train.classes:
        theirs, ours = (
            f"{len(names)} classes ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
            for names in (about.classes, train.classes)
        )
        raise UsageError(
            f"{path} is a classifier of {theirs}, but {config.data} has {ours}: --new_head begins the head anew and "
            "keeps the backbone."
        )
    return classifier.backbone, b, str(path), dict(classifier.head.state_dict())


def without_repeated(parts: Parts, twins: Twins) -> Parts:
    """The parts with `twins` noted, and where asked for with train images left out that are in test."""
    if parts.config.duplicates != "drop" or not twins.pairs:
        return replace(parts, twins=twins)
    train = without_twins(parts.train, twins)
    return replace(parts, train=train, twins=replace(twins, dropped=len(parts.train) - len(train)))


def build_classifier(parts: Parts) -> Classifier:
    """Backbone and head; the head's first weights come from torch's default generator, or from the classifier given."""
    c, labels, classes = parts.config.classification, parts.train.labels, len(parts.train.classes)
    weights = None
    if c.class_weights == "balanced" and parts.multi_label:
        counts = labels.sum(0)  # a positive counts by how many negatives there are to it
        weights = torch.tensor((len(labels) - counts) / np.maximum(counts, 1), dtype=torch.float32)
    elif c.class_weights == "balanced":
        counts = np.bincount(labels, minlength=classes)
        weights = torch.tensor(len(labels) / (classes * np.maximum(counts, 1)), dtype=torch.float32)
    learner = Classifier(
        parts.backbone, classes, multi_label=parts.multi_label, frozen=parts.config.frozen, smoothing=c.smoothing,
        class_weights=weights,
    )  # fmt: skip
    if parts.head is not None:
        learner.head.load_state_dict(parts.head)
    return learner


def build_loader(parts: Parts, team: Team) -> tuple[ViewLoader, TrainingBatch]:
    """Batches of crops with labels, and what is done to them on the device."""
    config, m, source = parts.config, parts.config.mixing, parts.train
    mean, std = parts.metadata.mean, parts.metadata.std
    assert mean is not None and std is not None
    views = ViewConfig(size=parts.size, scale=m.scale, ratio=m.ratio, flip=m.flip, turn=m.turn, mean=mean, std=std)
    colours = source.bands == 3 and source.dtype == torch.uint8
    loader = ViewLoader(
        source,
        views,
        batch_size=min(config.batch_size, max(2, len(source) // team.size)),
        seed=config.seed,
        workers=config.train.workers,
        crops=1,
        rank=team.rank,
        world_size=team.size,
        max_bad_share=config.max_bad_share,
        read_timeout_s=config.read_timeout_s,
        pin_memory=resolve_device(config.train.accelerator).type == "cuda",
        touch=RandAugment(m.randaugment, parts.size, mean) if m.randaugment and colours else None,
        fingerprint=fingerprint(source),
        labels=label_fingerprint(*(side for side in (source, parts.validation) if side is not None)),
    )
    classes, smoothing = len(source.classes), config.classification.smoothing
    return loader, TrainingBatch(mean, std, m, classes=classes, smoothing=smoothing, multi_label=parts.multi_label)


def whole_loader(parts: Parts, source: LabelledSource) -> ImageLoader:
    """All images of `source`, whole but for the edge that `test_crop` leaves out."""
    return ImageLoader(
        source, parts.size, batch_size=BATCH, workers=parts.config.train.workers, crop=parts.config.test_crop,
        read_timeout_s=parts.config.read_timeout_s,
    )  # fmt: skip


def whole_images(parts: Parts, loader: ImageLoader, skipped: dict[str, str]) -> Iterator[tuple[Tensor, Tensor]]:
    """What `loader` gives, normalised; unreadable images go to `skipped`."""
    assert parts.metadata.mean is not None and parts.metadata.std is not None
    device = resolve_device(parts.config.train.accelerator)
    for batch in loader:
        assert batch.labels is not None
        yield normalise(to_device(batch.images, device), parts.metadata.mean, parts.metadata.std), batch.labels
    skipped.update({loader.source.name(i): reason for i, reason in loader.skipped.items()})


def account_of(parts: Parts) -> dict[str, Any]:
    """The split as it was used, and what the backbone is: kept in the run as data.json."""
    sides = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {
        "backbone": asdict(parts.metadata) | {"weights": parts.weights},
        "classes": list(parts.train.classes),
        "duplicates": asdict(parts.twins),
        "split": {k: [s.name(i) for i in range(len(s))] for k, s in sides.items() if s is not None},
    }


def told(parts: Parts) -> str:
    """The run in a line, before it begins."""
    validation = "" if parts.validation is None else f", {len(parts.validation)} for validation"
    several = ", any number of them an image" if parts.multi_label else ""
    return (
        f"classification of {len(parts.train.classes)} classes{several}: {len(parts.train)} images to train "
        f"on{validation}, {len(parts.test)} to test; {parts.metadata.backbone} from {parts.weights}, {parts.size} px"
        + (", backbone frozen" if parts.config.frozen else "")
    )


def notes_on(parts: Parts) -> Iterator[str]:
    """What the user should hear, one sentence each."""
    yield from labelled_notes(parts.train, parts.config.data)
    if parts.head is not None:
        yield f"{parts.weights} is a classifier of these classes: its head is trained further (--new_head begins anew)"
    if parts.twins.pairs:
        yield parts.twins.words(len(parts.test))
    if parts.config.mixing.randaugment and (parts.train.bands != 3 or parts.train.dtype != torch.uint8):
        yield "these are not three 8-bit colours: RandAugment is off (mixing.randaugment)"
    if parts.multi_label and (parts.config.mixing.mixup or parts.config.mixing.cutmix):
        yield "an image may be of several classes: images are not mixed, and labels not smoothed"
    if len(parts.train) < parts.config.batch_size:
        yield f"{len(parts.train)} training images do not fill a batch of {parts.config.batch_size}: all go into each"
