"""What a learner makes of some images, as sections of a report: where data, method and report meet."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cmid.commands.learners import views_of
from cmid.config import PretrainConfig
from cmid.contracts import Backbone, Learner, Look, View, Views
from cmid.data.augment import BatchAugment
from cmid.data.crops import reduction_for, squash
from cmid.data.decode import BadImage, Decoded, Reduction
from cmid.data.images import ImageLoader, resize_whole
from cmid.data.sources import ImageSource, LabelledSource
from cmid.data.views import ViewLoader
from cmid.errors import CmidError
from cmid.evaluation.features import extract_features
from cmid.ops.matching import places_on_crop
from cmid.ops.normalise import denormalise, normalise
from cmid.report.dense import Correspondence, colour_section, correspondence_section
from cmid.report.feature_map import map_section
from cmid.report.features import nearest, project, similarity
from cmid.report.matches import MatchedPair, match_section
from cmid.report.neighbours import Neighbours, Thumb, neighbour_section
from cmid.report.page import Absent, Section
from cmid.report.pictures import RGB, as_rgb, fit
from cmid.report.reconstructions import Reconstruction, reconstruction_section

NEIGHBOURS = 6
POINTS = 4
FINE_GRID = 12  # positions a side that a dense map should have to be worth looking at
SOURCE_SIDE = 448
VIEW_NAMES = ("weak view", "strong view")


class Chosen:
    """Some images of a source, by their place among the chosen; `labels` where the source has them."""

    def __init__(self, source: ImageSource, places: Sequence[int]) -> None:
        self.source, self.places = source, [int(i) for i in places]
        self.bands, self.dtype, self.fresh = source.bands, source.dtype, False
        self.classes: tuple[str, ...] = ()
        if isinstance(source, LabelledSource):
            self.classes, self.labels = source.classes, source.labels[self.places]

    def __len__(self) -> int:
        return len(self.places)

    def name(self, i: int) -> str:
        """What image i is called."""
        return self.source.name(self.places[i])

    def decode(self, i: int, reduction: Reduction | None = None) -> Decoded:
        """Image i; raises `BadImage`."""
        return self.source.decode(self.places[i], reduction)

    def among(self, places: Collection[int]) -> list[int]:
        """Those of the chosen that lie at `places` of the source."""
        return [i for i, place in enumerate(self.places) if place in places]


@dataclass(frozen=True)
class Album:
    """Whole images that could be read.

    Attributes:
        source: where they come from, in the same order.
        images: `(N, C, S, S)`, uint8 or float32 as the source has them.
        thumbs: the same, to be drawn, with name and class.
    """

    source: Chosen
    images: Tensor
    thumbs: list[Thumb]

    def __len__(self) -> int:
        return len(self.thumbs)

    def first(self, count: int) -> Chosen:
        """The first `count` of its images."""
        return Chosen(self.source.source, self.source.places[:count])


def choose(
    source: ImageSource,
    count: int,
    seed: int,
    size: int,
    shown: Sequence[int] = (0, 1, 2),
    *,
    skipped: Collection[int] = (),
    workers: int = 1,
    read_timeout_s: float = 300.0,
) -> Album:
    """`count` readable images of a source, drawn by `seed`, as squares of `size` pixels.

    Args:
        source: images.
        count: how many are drawn, those that cannot be read among them.
        seed: of the draw.
        size: side in pixels.
        shown: the bands drawn.
        skipped: positions of images that are known to be unreadable; nobody tries them.
        workers: loader processes; without any, a read that never ends is waited for.
        read_timeout_s: how long a read may take.

    Raises:
        CmidError: where none of those drawn can be read.
    """
    order = np.random.default_rng([seed & (1 << 64) - 1, 0]).permutation(len(source))
    drawn = Chosen(source, order[:count].tolist())
    loader = ImageLoader(drawn, size, workers=workers, read_timeout_s=read_timeout_s)
    loader.leave_out(dict.fromkeys(drawn.among(skipped), "unreadable while training"))
    read = list(loader)
    if not read:
        raise CmidError(f"none of {len(drawn)} images could be read, {drawn.name(0)} among them")
    places = torch.cat([batch.indices for batch in read]).tolist()
    images = torch.cat([batch.images for batch in read])
    kept = Chosen(source, [drawn.places[i] for i in places])
    return Album(kept, images, [_thumb(kept, i, image, shown) for i, image in enumerate(images)])


def short_name(name: str) -> str:
    """A file with the folder it lies in: `beach/beach01.jpg`."""
    return "/".join(Path(name).parts[-2:])


def _thumb(source: Chosen, i: int, image: Tensor, shown: Sequence[int]) -> Thumb:
    label = source.classes[int(source.labels[i])] if source.classes else None
    return Thumb(as_rgb(image.numpy(), shown), short_name(source.name(i)), label)


class Looker:
    """Asks a learner about images; every answer is fixed by the settings' seed.

    Args:
        learner: with its trained weights; put into evaluation mode.
        settings: of its run.
        device: where it computes, in float32.
        shown: the bands that are drawn as red, green and blue.
    """

    def __init__(
        self, learner: Learner, settings: PretrainConfig, device: torch.device, shown: Sequence[int] = (0, 1, 2)
    ) -> None:
        self.learner, self.settings, self.device = learner.to(device).eval(), settings, device
        self.views, self.shown = settings.views, shown

    @property
    def backbone(self) -> Backbone:
        """The student's, which is what `extract` writes by default."""
        return self.learner.backbone

    @property
    def enlarged(self) -> int:
        """How much larger images are than crops where dense features are looked at; a backbone may take one size."""
        return 2 if getattr(self.backbone, "fixed_size", None) is None else 1

    def views_of(self, album: Album, count: int) -> Views:
        """Crops of the first `count` images as in training, recoloured and normalised, in the album's order."""
        chosen = album.first(count)
        loader = ViewLoader(
            chosen,
            replace(self.views, small_crops=0),
            batch_size=len(chosen),
            seed=self.settings.seed,
            workers=0,
            max_bad_share=1.0,
        )
        cut = next(iter(loader))
        order = cut.indices.argsort(stable=True)
        batch = Views(tuple(view.rows(order) for view in cut), cut.indices[order], cut.epoch)
        with self._seeded():
            return BatchAugment(views_of(self.settings))(batch.to(self.device))

    def view_sections(self, album: Album, count: int) -> list[Section | Absent]:
        """Reconstructions, matches and correspondences of two views of each of the first images."""
        views = self.views_of(album, count)
        names = [album.thumbs[i].name for i in views.indices.tolist()]
        return [*self._method_sections(album, views, names), self._correspondences(views, names)]

    def painted_section(self, album: Album, count: int) -> Section | Absent:
        """Reconstructions alone, of views of the first images."""
        views = self.views_of(album, count)
        names = [album.thumbs[i].name for i in views.indices.tolist()]
        with self._seeded(), torch.no_grad():
            seen = self.learner.look(views)
        return self._painted(seen, [self._drawn(view.images) for view in views], names)

    def _painted(
        self, seen: Look | None, pictures: Sequence[NDArray[np.uint8]], names: Sequence[str]
    ) -> Section | Absent:
        if seen is None or not seen.predictions:
            return Absent("Reconstructions", "Nothing was reconstructed.")
        titles = VIEW_NAMES if len(seen.predictions) > 1 else ("view",)
        masked, predicted = ([self._drawn(images) for images in each] for each in (seen.masked, seen.predictions))
        return reconstruction_section(
            [
                Reconstruction(name, titles[v], pictures[v][i], masked[v][i], predicted[v][i])
                for i, name in enumerate(names)
                for v in range(len(predicted))
            ]
        )

    def _method_sections(self, album: Album, views: Views, names: Sequence[str]) -> list[Section | Absent]:
        with self._seeded(), torch.no_grad():
            seen = self.learner.look(views)
        if seen is None:
            reason = f"The method {self.settings.method} neither reconstructs nor matches."
            return [Absent("Reconstructions", reason), Absent("Matches", reason)]
        pictures = [self._drawn(view.images) for view in views]
        painted = self._painted(seen, pictures, names)
        if seen.matches is None:
            return [
                painted,
                Absent("Matches", f"The method {self.settings.method}, as it is set, matches no positions."),
            ]
        both = torch.stack((seen.matches.first, seen.matches.second), -1).cpu().numpy()
        valid = seen.matches.valid.cpu().numpy()
        pairs = []
        for i, name in enumerate(names):
            source, boxes = self._source(album, int(views.indices[i]), views, i)
            crops, changes = (pictures[0][i], pictures[1][i]), (changed(views[0], i), changed(views[1], i))
            pairs.append(MatchedPair(name, crops, seen.grid, both[i][valid[i]], source, boxes, changes))
        return [painted, match_section(pairs)]

    def _source(self, album: Album, place: int, views: Views, row: int) -> tuple[RGB | None, NDArray]:
        """The image two crops were cut from, small, and their boxes in its pixels."""
        boxes = torch.stack([view.boxes[row] for view in views]).cpu().numpy().astype(float)
        try:
            image = album.source.decode(place, lambda width, height: reduction_for(min(width, height), SOURCE_SIDE))
        except BadImage:  # it has gone since the crops were cut
            return None, boxes
        pixels, width, height = image.pixels, image.width, image.height
        if self.views.squash:
            width = height = self.views.size
            pixels = squash(pixels, self.views.size)
        small = fit(as_rgb(np.moveaxis(pixels, -1, 0), self.shown), SOURCE_SIDE)
        return small, boxes * ([small.shape[1] / width, small.shape[0] / height] * 2)

    def _correspondences(self, views: Views, names: Sequence[str]) -> Section | Absent:
        scale = float(self.enlarged)
        maps = [
            self.dense_maps(F.interpolate(view.images, scale_factor=scale, mode="bicubic", antialias=True))[0]
            for view in views
        ]
        grid = (maps[0].shape[2], maps[0].shape[3])
        points_seen, there = views[0].centres(grid), views[1]
        first = points_seen.cpu().numpy()
        places = places_on_crop(points_seen, there.boxes, there.flipped, there.turns).cpu().numpy()
        pictures = [self._drawn(view.images) for view in views]
        pairs = []
        for i, name in enumerate(names):
            place = places[i]
            margin = 0.5 / np.array([grid[1], grid[0]])
            inside = np.flatnonzero(((place >= margin) & (place <= 1 - margin)).all(1))
            if len(inside) < POINTS:
                continue
            points = spread_out(first[i], inside, POINTS)
            vectors = maps[0][i].reshape(len(maps[0][i]), -1)
            heat = np.stack([similarity(vectors[:, p], maps[1][i]) for p in points])
            pairs.append(Correspondence(name, pictures[0][i], pictures[1][i], grid, points, heat, place[points]))
        if not pairs:
            return Absent("Correspondences", "No two crops of an example image overlap enough; try more images.")
        return correspondence_section(pairs[: max(1, len(names) // 2)])

    def dense_maps(self, images: Tensor) -> tuple[NDArray[np.float32], int]:
        """Features `(N, D, h, w)` of normalised images `(N, C, H, W)`, and pixels per position.

        Of the coarsest map with `FINE_GRID` positions a side, or the finest where none has so many.
        """
        with torch.no_grad():
            pyramid = self.backbone(images.to(self.device))
        fine = [i for i, each in enumerate(pyramid.maps) if min(each.shape[-2:]) >= FINE_GRID]
        best = fine[-1] if fine else 0
        return pyramid[best].float().cpu().numpy(), pyramid.strides[best]

    def dense_section(self, album: Album, count: int) -> Section | Absent:
        """Dense features of the first whole images as colours."""
        images, drawn = [], []
        for i in range(min(count, len(album))):
            try:
                square = resize_whole(album.source.decode(i).pixels, self.enlarged * self.views.size)
            except BadImage:
                continue
            images.append(square)
            drawn.append((album.thumbs[i].name, as_rgb(square.numpy(), self.shown)))
        if not images:
            return Absent("Dense features", "The example images can no longer be read.")
        maps, stride = self.dense_maps(normalise(torch.stack(images), self.views.mean, self.views.std))
        return colour_section(drawn, maps, stride)

    def neighbour_and_map_sections(
        self, album: Album, count: int, method: Literal["pca", "tsne", "umap"]
    ) -> list[Section | Absent]:
        """Neighbours of the first `count` images among all of the album, and all of them on a plane."""
        batches = (
            (normalise(part, self.views.mean, self.views.std), torch.zeros(len(part), dtype=torch.int64))
            for part in album.images.split(32)
        )
        features = extract_features(self.backbone, batches, self.device)[0].numpy()
        queries = np.arange(min(count, len(album)))
        sections: list[Section | Absent] = []
        if len(album) < 2:
            sections.append(Absent("Nearest neighbours", "There is only one image."))
        else:
            found, distances = nearest(features[queries], features, NEIGHBOURS, queries)
            rows = [
                Neighbours(album.thumbs[q], [album.thumbs[j] for j in found[q]], distances[q].tolist()) for q in queries
            ]
            sections.append(neighbour_section(rows, len(album)))
        return [*sections, map_section(album.thumbs, project(features, method, self.settings.seed), method)]

    def _drawn(self, images: Tensor) -> NDArray[np.uint8]:
        return as_rgb(denormalise(images.detach(), self.views.mean, self.views.std).cpu().numpy(), self.shown)

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.settings.seed)
            yield


def changed(view: View, row: int) -> str:
    """How a crop was turned and mirrored after it was cut, in words; empty where it was not."""
    quarters = 0 if view.turns is None else int(view.turns[row])
    words = [f"turned by {90 * quarters}°"] if quarters else []
    return " and ".join(words + ["mirrored"] * bool(view.flipped[row]))


def spread_out(places: NDArray, among: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` of the positions `among`, far apart: the most central first, then always the farthest from all taken."""
    here = places[among]
    taken = [int(np.linalg.norm(here - here.mean(0), axis=1).argmin())]
    while len(taken) < min(count, len(among)):
        distance = np.linalg.norm(here[:, None] - here[taken][None], axis=2).min(1)
        taken.append(int(distance.argmax()))
    return among[taken]
