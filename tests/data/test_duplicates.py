"""Copies are found whatever was done to them, and look-alikes are not."""

import io
import json

import numpy as np
import pytest
import scipy.fft
import torch
from PIL import Image

from cmid.data import duplicates
from cmid.data.decode import BadImage, Decoded, decode
from cmid.data.duplicates import DuplicatePair, find_duplicates, find_pairs
from cmid.data.folder import FolderSource
from cmid.data.thumbnails import fingerprint, thumbnail
from cmid.errors import UsageError


class Arrays:
    """A source of `(H, W, C)` arrays; None cannot be read."""

    fresh = False

    def __init__(self, *images):
        self.images = images
        self.bands, self.dtype = images[0].shape[-1], torch.from_numpy(images[0]).dtype

    def __len__(self):
        return len(self.images)

    def name(self, i):
        return f"array {i}"

    def decode(self, i, reduction=None):
        if self.images[i] is None:
            raise BadImage(self.name(i), "torn")
        pixels = self.images[i]
        return Decoded(pixels, width=pixels.shape[1], height=pixels.shape[0])


def scene(seed, side=96, bands=3):
    """Blocks of many sizes, `(side, side, bands)` uint8: detail at every scale, as in a town."""
    generator = np.random.default_rng(seed)
    levels = np.zeros((side, side, bands))
    for size in (24, 12, 6, 3):
        cells = generator.normal(size=(-(-side // size), -(-side // size), bands))
        levels += size**0.5 * np.kron(cells, np.ones((size, size, 1)))[:side, :side]
    low, high = levels.min(), levels.max()
    return ((levels - low) * (255 / (high - low))).astype(np.uint8)


def jpeg(pixels, quality=40):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(io.BytesIO(file.getvalue())))


def resized(pixels, width, height):
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def turned(pixels, turns, mirrored):
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))


def noisy(pixels, std):
    noise = np.random.default_rng(0).normal(0, std, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


COPIES = {
    "recoded": jpeg,
    "smaller": lambda pixels: resized(pixels, 50, 50),
    "larger": lambda pixels: resized(pixels, 200, 200),
    "squashed": lambda pixels: resized(pixels, 96, 70),
    "darker": lambda pixels: (pixels * 0.6).astype(np.uint8),
    "grey": lambda pixels: np.repeat(pixels.mean(2, keepdims=True), 3, 2).astype(np.uint8),
    "noisy": lambda pixels: noisy(pixels, 6),
    "float": lambda pixels: pixels.astype(np.float32) / 255,
    "twelve bits": lambda pixels: pixels.astype(np.float32) * 16 + 100,
    "mirrored": lambda pixels: turned(pixels, 0, True),
    "turned": lambda pixels: turned(pixels, 3, False),
}


def test_equal_pixels_are_exact_whatever_the_file(tmp_path):
    for number, suffix in enumerate(("png", "bmp", "tif", "png")):
        Image.fromarray(scene(min(number, 1) if number < 3 else 9)).save(tmp_path / f"{number}.{suffix}")
    Image.fromarray(scene(1)).save(tmp_path / "4.webp", lossless=True)
    pairs = find_pairs(fingerprint(FolderSource(tmp_path)))
    assert pairs == (DuplicatePair(1, 2, "exact"), DuplicatePair(1, 4, "exact"))
    one_level_off = scene(1).copy()
    one_level_off[3, 5, 1] ^= 1
    (pair,) = find_pairs(fingerprint(Arrays(scene(1), one_level_off)))
    assert pair.kind == "near" and pair.distance == 0 and pair.similarity == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_near(how):
    train = Arrays(*[scene(seed) for seed in range(12)])
    test = Arrays(*[COPIES[how](scene(seed)) for seed in (3, 20, 21, 7)])
    found = find_duplicates(train, test)
    assert [(pair.first, pair.second, pair.kind) for pair in found.between] == [(3, 0, "near"), (7, 3, "near")]
    assert found.leaked == (0, 3) and not found.within_train and not found.within_test


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_the_position_told_turns_the_second_into_the_first(turns, mirrored):
    other = jpeg(scene(5), 90)
    first = turned(scene(5), turns, mirrored)
    (pair,) = find_pairs(fingerprint(Arrays(first)), fingerprint(Arrays(other)))
    assert (pair.turned, pair.mirrored) == (90 * turns, mirrored)
    back = turned(other, pair.turned // 90, pair.mirrored).astype(float)
    assert np.corrcoef(back.ravel(), first.ravel())[0, 1] > 0.95


def test_a_moved_window_is_near_up_to_a_point():
    scenes = [np.kron(scene(seed, 72), np.ones((4, 4, 1), np.uint8)) for seed in range(8)]
    still = fingerprint(Arrays(*[s[:256, :256] for s in scenes]))
    moved = {by: fingerprint(Arrays(*[s[by : 256 + by, by : 256 + by] for s in scenes])) for by in (2, 4, 32)}
    assert [(p.first, p.second) for p in find_pairs(still, moved[2])] == [(i, i) for i in range(8)]
    assert len(find_pairs(still, moved[4], max_distance=16)) >= 6
    assert not find_pairs(still, moved[32])


def test_look_alikes_are_not_near():
    # a shore: two levels and small waves, different ones in each image
    generator = np.random.default_rng(0)
    shore = np.where(np.arange(128) < 60, 90.0, 180.0)[None, :, None]
    images = [
        np.repeat((shore + generator.normal(0, 25, (128, 128, 1))).clip(0, 255).astype(np.uint8), 3, 2)
        for _ in range(6)
    ]
    prints = fingerprint(Arrays(*images))
    small = torch.nn.functional.avg_pool2d(prints.thumbnails.float()[:, None], 2).flatten(1)
    assert torch.corrcoef(small).min() > 0.9, "the plain correlation of thumbnails takes them for one"
    assert find_pairs(prints, max_distance=31) == ()


def test_pictures_of_one_grey():
    flat = [np.full((20, 20, 3), level, np.uint8) for level in (0, 128, 255, 128)]
    deep = [np.full((30, 30, 5), level, np.float32) for level in (0.1, 1.7, np.nan)]
    assert find_pairs(fingerprint(Arrays(*flat))) == (DuplicatePair(1, 3, "exact"),)
    assert find_pairs(fingerprint(Arrays(*deep))) == ()
    assert find_pairs(fingerprint(Arrays(*flat)), fingerprint(Arrays(*deep, scene(0, bands=5)))) == ()


def test_any_bands_with_nodata():
    picture = scene(4, bands=7).astype(np.float32) / 255
    picture[:10] = np.nan
    copy = picture * np.float32(0.5)
    (pair,) = find_pairs(fingerprint(Arrays(picture, scene(5, bands=7).astype(np.float32))), fingerprint(Arrays(copy)))
    assert (pair.first, pair.second, pair.kind) == (0, 0, "near")
    same = find_pairs(fingerprint(Arrays(picture)), fingerprint(Arrays(picture.copy())))
    assert same == (DuplicatePair(0, 0, "exact"),)


def test_number_type_and_shape_are_part_of_the_pixels():
    blank = [np.zeros((4, 8, 3), np.uint8), np.zeros((8, 4, 3), np.uint8), np.zeros((4, 2, 3), np.float32)]
    assert find_pairs(fingerprint(Arrays(*blank))) == ()


def test_unreadable_images_are_passed_over():
    train, test = Arrays(scene(0), None, scene(1)), Arrays(jpeg(scene(1)), None)
    found = find_duplicates(train, test)
    assert [(p.first, p.second) for p in found.between] == [(2, 0)]
    assert found.skipped_train == {1: "torn"} and found.skipped_test == {1: "torn"}
    none = fingerprint(Arrays(scene(0)))
    for nothing in (fingerprint(Torn()), fingerprint(Torn(0))):
        assert not len(nothing.indices)
        assert find_pairs(nothing) == find_pairs(none, nothing) == find_pairs(nothing, none) == ()


class Torn(Arrays):
    def __init__(self, count=2):
        super().__init__(scene(0))
        self.images = (None,) * count


def test_copies_of_copies_are_told_once_and_every_test_image_is_named():
    train = fingerprint(Arrays(*[scene(0)] * 5, scene(1), jpeg(scene(0))))
    test = fingerprint(Arrays(scene(0), jpeg(scene(0), 20), scene(2), jpeg(scene(0), 20), scene(0)))
    assert [(p.first, p.second, p.kind) for p in find_pairs(train)] == [
        *[(0, i, "exact") for i in range(1, 5)],
        (0, 6, "near"),
    ]
    between = find_pairs(train, test)
    assert [(p.first, p.second, p.kind) for p in between] == [
        (0, 0, "exact"), (0, 1, "near"), (0, 3, "near"), (0, 4, "exact"),
        (6, 0, "near"), (6, 1, "near"), (6, 3, "near"), (6, 4, "near"),
    ]  # fmt: skip


def test_chunks_and_workers_change_nothing(monkeypatch):
    train = Arrays(*[scene(seed) for seed in range(150)], jpeg(scene(20)))
    test = Arrays(*[jpeg(scene(seed)) for seed in (4, 149, 300)], scene(80))
    heard = []
    whole = find_duplicates(train, test, tick=lambda done, of: heard.append((done, of)))
    assert len(whole.between) == 3 and len(whole.within_train) == 1
    assert heard == sorted(heard) and heard[-1] == (2 * 155 + 151, 2 * 155 + 151)
    monkeypatch.setattr(duplicates, "_DISTANCES_AT_ONCE", 400)
    monkeypatch.setattr(duplicates, "_LOOKS_AT_ONCE", 1)
    pieces = find_duplicates(train, test, workers=2)
    for name in ("between", "within_train", "within_test"):
        for one, other in zip(getattr(whole, name), getattr(pieces, name), strict=True):
            assert one.similarity == pytest.approx(other.similarity, abs=1e-5)
            assert (one.first, one.second, one.distance) == (other.first, other.second, other.distance)
    assert find_duplicates(train, test, within=False).within_train == ()
    plain = json.loads(json.dumps(whole.to_plain()))
    assert plain["leaked"] == [0, 1, 3] and plain["between"][0]["kind"] == "near"


def test_the_hash_is_that_of_scipys_cosine_transform():
    thumbnails = torch.stack([thumbnail(scene(seed)) for seed in range(9)])
    waves = scipy.fft.dctn(thumbnails.numpy().astype(float), axes=(1, 2), norm="ortho")[:, :8, :8].reshape(9, 64)[:, 1:]
    expected = np.where(waves > np.median(waves, axis=1, keepdims=True), 1, -1)
    assert np.array_equal(duplicates._signs(thumbnails).numpy(), expected)


def test_the_second_look_is_the_best_correlation_over_shifts():
    a = torch.stack([thumbnail(scene(seed)) for seed in range(3)])
    b = torch.stack([thumbnail(scene(seed)).roll((3, -6), (0, 1)) for seed in (0, 1, 9)])
    found = duplicates._similarity(a, b)
    for one, other, value in zip(duplicates._detail(a).numpy(), duplicates._detail(b).numpy(), found, strict=True):
        best = -1.0
        for y in range(-8, 9):
            for x in range(-8, 9):
                p = one[max(y, 0) : 64 + min(y, 0), max(x, 0) : 64 + min(x, 0)]
                q = other[max(-y, 0) : 64 + min(-y, 0), max(-x, 0) : 64 + min(-x, 0)]
                best = max(best, (p * q).sum() / np.sqrt((p**2).sum() * (q**2).sum()))
        assert float(value) == pytest.approx(best, abs=1e-4)
    assert found[:2].min() > 0.8 > 0.5 > found[2]


@pytest.mark.parametrize("wrong", [{"max_distance": 32}, {"max_distance": -1}, {"min_similarity": 0.0}])
def test_thresholds_out_of_range(wrong):
    with pytest.raises(UsageError, match="expected a distance of 0 to 31 bits"):
        find_duplicates(Arrays(scene(0)), Arrays(scene(0)), **wrong)
    with pytest.raises(UsageError, match="similarity above 0"):
        find_pairs(fingerprint(Arrays(scene(0))), **wrong)


def test_real_images(real_images):
    folder = real_images / "UCMerced_LandUse" / "Images"
    names = ["airplane01", "airplane02", "airplane42", "airplane43", "beach74", "beach75", "beach85", "beach86"]
    names += ["beach87", "beach88", "runway28", "runway48", "runway51", "runway52", "forest10", "forest11"]
    paths = [next(folder.glob(f"*/{name}.*")) for name in names]
    images = [decode(path).pixels for path in paths]
    prints = fingerprint(Arrays(*images))
    assert find_pairs(prints, max_distance=20) == (DuplicatePair(0, 1, "exact"),), "look-alikes, and one copy"
    copies = fingerprint(Arrays(*[jpeg(resized(pixels, 150, 150), 75) for pixels in images[1:]]))
    assert {pair.second for pair in find_pairs(prints, copies)} == set(range(15))
