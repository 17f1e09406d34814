"""Whether labelled images give what a backbone was trained on: its bands, on its scale; and what is said if not."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from cmid.config import ViewConfig
from cmid.contracts import Backbone
from cmid.data.image_notes import LABELLED, image_notes
from cmid.data.sources import ImageSource, LabelledSource
from cmid.data.statistics import Stretch, measure
from cmid.data.torchgeo_classes import NO_CLASS
from cmid.data.torchgeo_datasets import TorchgeoSide, is_named
from cmid.errors import CmidError, UsageError, multiples
from cmid.zoo.backbone_files import BackboneMetadata

MEASURED = 256
"""Images of train that say what values the bands hold, where the weights do not."""

FILES_ARE_RGB = (
    "is of image files, which are read as 8-bit RGB of 3 bands, whatever they hold. Backbones of other bands or "
    "deeper values are scored on torchgeo's labelled sets (torchgeo:NAME?root=DIR), or fine-tuned for segmentation on "
    "GeoTIFFs with label rasters"
)


def other_bands(what: str, expected: int, found: int, data: str, *, files: bool) -> UsageError:
    """The refusal of images of other bands than `what` is for.

    Args:
        what: holds the weights, in words.
        expected: its bands.
        found: those of the images.
        data: what the images belong to.
        files: they are image files that are read as RGB: `found` is not what they hold.
    """
    if files:
        return UsageError(f"{what} is for {expected} bands, but {data} {FILES_ARE_RGB}")
    return UsageError(f"{what} is for {expected} bands, but the images of {data} have {found}")


def put_on_scale(sides: Sequence[LabelledSource], known: ViewConfig | BackboneMetadata, data: str) -> None:
    """Makes labelled images give pixels on the scale that a backbone was trained on.

    Args:
        sides: the images.
        known: of the backbone: the mean of each band, and what else there is of `low`, `high` and `bands`.
        data: what the images belong to.

    Raises:
        UsageError: other bands, or the same in another order; or bytes where the backbone knows deeper values, or the
            other way round.
    """
    assert known.mean is not None, "whoever asks has found one, or taken ImageNet's"
    bands, low = len(known.mean), known.low or ()
    for side in sides:
        if side.bands != bands:
            raise other_bands("the backbone", bands, side.bands, data, files=not is_named(data))
        if (side.dtype == torch.uint8) == bool(low):
            if not is_named(data):
                raise UsageError(f"the backbone was trained on values deeper than 8 bits, but {data} {FILES_ARE_RGB}")
            here, there = ("8 bits", "deeper values") if low else ("deeper values", "8 bits")
            raise UsageError(f"the images of {data} are of {here}, but the backbone was trained on {there}")
        if isinstance(side, TorchgeoSide):
            _require_order(side.source.names, known.bands or (), data)
            side.source.stretch = Stretch(low, known.high or (), known.mean)


def _require_order(found: Sequence[str], expected: Sequence[str], data: str) -> None:
    """Bands of the same names, if any, stand as the backbone's do; of others nothing is known."""
    here, there = ([name.casefold() for name in names] for names in (found, expected))
    if here != there and sorted(here) == sorted(there):
        order = ",".join(expected)
        raise UsageError(
            f"the backbone was trained on the bands {order}, but those of {data} are {','.join(found)}: name them in "
            f"the backbone's order, as in {data.partition('?')[0]}?bands={order}"
        )


def check_size(size: int, backbone: Backbone) -> None:
    """Images of `size` pixels are what the backbone's strides divide; `UsageError` with the nearest that are."""
    stride = backbone.strides[-1]
    if size % stride:
        raise UsageError(
            f"size {size} is not a multiple of {stride} px, the coarsest stride of {backbone.name}: take "
            f"{multiples(size, stride)}"
        )


def measured_on(train: LabelledSource, metadata: BackboneMetadata, seed: int) -> BackboneMetadata:
    """`metadata` with what 0 and 1 mean measured on train, for deep values that the weights say nothing of."""
    if train.dtype == torch.uint8 or metadata.low is not None or not isinstance(train, TorchgeoSide):
        return metadata
    found = measure(train, train.source.names, images=min(len(train), MEASURED), seed=seed)
    return replace(metadata, low=found.low, high=found.high, mean=found.mean, std=found.std)


def told_names(side: LabelledSource) -> tuple[str, ...] | None:
    """What the bands of labelled images are called, where their source says more than numbers."""
    names = side.source.names if isinstance(side, TorchgeoSide) else ()
    return None if all(name.isdigit() for name in names) else names


def labelled_notes(source: ImageSource, data: str) -> tuple[str, ...]:
    """What reading labelled image files as 8-bit RGB will do to them; of torchgeo's data sets, what is left out."""
    if not is_named(data):
        return image_notes(source, LABELLED)
    side = _torchgeo_side(source)
    return side.notes if side is not None else ()


def check_readable(labelled: Sequence[ImageSource], max_bad_share: float, data: str) -> None:
    """That no more of torchgeo's images than that were left out because they cannot be read; files are read later.

    Args:
        labelled: all that were opened of `data`.
        max_bad_share: of all its images.
        data: what the user named.

    Raises:
        CmidError: more.
    """
    side = _torchgeo_side(labelled[0])
    bad = [each for each in side.left_out if each[1] != NO_CLASS] if side is not None else []
    images = sum(map(len, labelled)) + len(bad)
    if len(bad) > max_bad_share * images:
        first = "; ".join(f"{name} ({reason})" for name, reason in bad[:3])
        raise CmidError(
            f"too many unreadable images: {len(bad)} of {images} of {data}, where at most {max_bad_share:.0%} are "
            f"allowed. First: {first}. Fetch them again, or raise max_bad_share"
        )


def _torchgeo_side(source: ImageSource) -> TorchgeoSide | None:
    """What the images are some of, or have the classes of."""
    while not isinstance(source, TorchgeoSide) and hasattr(source, "source"):
        source = source.source
    return source if isinstance(source, TorchgeoSide) else None
