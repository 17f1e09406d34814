"""torchgeo's own classes, on tiny copies of the layouts they expect."""

import glob
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from cmid.config import ViewConfig
from cmid.data.decode import BadImage
from cmid.data.labelled import LabelledFolder
from cmid.data.torchgeo_datasets import (
    TorchgeoSide,
    TorchgeoSource,
    build_dataset,
    labelled_sides,
    parse_name,
)
from cmid.data.views import ViewLoader
from cmid.errors import CmidError, UsageError
from tests.data.big_earth_net import big_earth_net, big_earth_net_v2
from tests.data.rasters_on_disk import write_raster
from tests.data.test_views import SMALL

CLASSES = ("AnnualCrop", "Forest", "River")


def draw_eurosat(root, per_class=4):
    """13 bands of uint16 in torchgeo's folders, with split files; values tell class and number."""
    base = root / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    files = {"train": [], "val": [], "test": []}
    for c, name in enumerate(CLASSES):
        for i in range(per_class):
            values = (
                np.full((13, 64, 64), 1000 * (c + 1) + 10 * i, np.uint16)
                + np.arange(13, dtype=np.uint16)[:, None, None]
            )
            values[:, ::2] += 7
            write_raster(base / name / f"{name}_{i + 1}.tif", values, photometric="minisblack")
            files["test" if i == per_class - 1 else "train"].append(f"{name}_{i + 1}.jpg")
    for split, names in files.items():
        (root / f"eurosat-{split}.txt").write_text("\n".join(names) + "\n")
    return root


def draw_resisc(root, count=5):
    """RESISC45-like 8-bit RGB in torchgeo's layout for UC Merced."""
    generator = np.random.default_rng(0)
    names = []
    for name in ("beach", "forest"):
        folder = root / "UCMerced_LandUse" / "Images" / name
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(generator.integers(0, 255, (256, 256, 3), np.uint8)).save(folder / f"{name}0{i}.tif")
            names.append(f"{name}0{i}.tif")
    for split in ("train", "val", "test"):
        chosen = [n for n in names if (n.endswith("4.tif")) == (split == "test")]
        (root / f"uc_merced-{split}.txt").write_text("\n".join(chosen) + "\n")
    return root


def test_a_name_is_taken_apart():
    named = parse_name("torchgeo:EuroSAT?root=/a b/c&split=val&bands=B04,B03,B02&checksum=true&key=other")
    assert (named.name, named.key) == ("EuroSAT", "other")
    assert named.arguments == {"root": "/a b/c", "split": "val", "bands": ("B04", "B03", "B02"), "checksum": True}
    assert parse_name("torchgeo:MillionAID").arguments == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/data/c++/x", "/data/c++/x"),
        ("/data/a%2Bb%26c", "/data/a+b&c"),
        ("2024-02-30", "2024-02-30"),
        ("2024-02-28", "2024-02-28"),
        ("x,2024-02-30", ("x", "2024-02-30")),
        ("+5", 5),
    ],
)
def test_a_folder_may_be_called_as_dates_and_with_a_plus(text, value):
    assert parse_name(f"torchgeo:EuroSAT?root={text}").arguments == {"root": value}


def test_thirteen_bands_are_read_as_they_are(tmp_path):
    source = TorchgeoSource(parse_name(f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path)}"))
    assert (len(source), source.bands, source.dtype, source.is_bytes) == (9, 13, torch.float32, False)
    assert source.names[:2] == ("B01", "B02")
    pixels = source.decode(0).pixels
    assert pixels.shape == (64, 64, 13) and pixels.dtype == np.float32
    assert pixels[1, 0].tolist() == [1000 + band for band in range(13)]
    assert source.name(0).endswith("AnnualCrop_1.tif")
    few = TorchgeoSource(parse_name(f"torchgeo:EuroSAT?root={tmp_path}&bands=B04,B03,B02"))
    assert few.names == ("B04", "B03", "B02") and few.decode(0).pixels[1, 0].tolist() == [1003, 1002, 1001]


def test_eight_bit_colours_stay_bytes(tmp_path):
    source = TorchgeoSource(parse_name(f"torchgeo:UCMerced?root={draw_resisc(tmp_path)}"))
    with Image.open(source.name(0)) as image:
        assert np.array_equal(source.decode(0).pixels, np.asarray(image))
    assert source.dtype == torch.uint8
    loader = ViewLoader(source, ViewConfig(size=32), batch_size=4, seed=0, workers=2)
    ids = torch.cat([batch.indices for batch in loader])
    assert sorted(ids.tolist()) == list(range(8)) and next(iter(loader))[0].images.dtype == torch.uint8
    loader.close()


def test_sides_are_the_sets_own_splits(tmp_path):
    train, test = labelled_sides(parse_name(f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path)}"), seed=0)
    assert (len(train), len(test), train.classes) == (9, 3, CLASSES)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and test.labels.tolist() == [0, 1, 2]
    assert test.name(1).endswith("Forest_4.tif")
    with pytest.raises(UsageError, match="leave split out"):
        labelled_sides(parse_name(f"torchgeo:EuroSAT?root={tmp_path}&split=train"), seed=0)


def draw_patternnet(root, counts):
    """8-bit RGB in torchgeo's layout for PatternNet, which has no splits of its own."""
    for c, (name, count) in enumerate(counts.items()):
        folder = root / "PatternNet" / "images" / name
        folder.mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (32, 32), (40 * c, i, 0)).save(folder / f"{name}{i:03d}.jpg")
    return root


def draw_millionaid(root, of_split, count=3):
    """8-bit RGB in torchgeo's layout for MillionAID, with and without a folder between scene and class.

    Args:
        of_split: names of the classes of each split.
    """
    for split, names in of_split.items():
        for c, name in enumerate(names):
            folder = root / split / "land" / name if c % 2 else root / split / "land" / "wet" / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 32), (40 * ord(name[0]) % 256, i, 0)).save(folder / f"{name}{i}.jpg")
    return root


def test_a_label_may_come_as_a_list_of_one(tmp_path):
    root = draw_millionaid(tmp_path, {"train": ("beach", "dam"), "test": ("beach", "dam")})
    train, test = labelled_sides(parse_name(f"torchgeo:MillionAID?root={root}"), seed=0)
    assert train.classes == ("beach", "dam") and train.labels.dtype == np.int64
    assert sorted(train.labels.tolist()) == sorted(test.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    for i, label in enumerate(train.labels):
        assert Path(train.name(i)).parent.name == train.classes[label]


def test_splits_that_number_their_classes_by_themselves_are_matched_by_name(tmp_path, monkeypatch):
    root = draw_millionaid(tmp_path, {"train": ("apron", "beach", "dam"), "test": ("beach", "church", "dam")})
    named = parse_name(f"torchgeo:MillionAID?root={root}")
    sides = labelled_sides(named, seed=0)
    for side in sides:
        assert side.classes == ("apron", "beach", "dam", "church") and len(side) == 9
        assert [side.classes[k] for k in side.labels] == [Path(side.name(i)).parent.name for i in range(9)]
    own = TorchgeoSource.all_labels
    several = lambda source, bad: np.eye(3, dtype=np.float32)[own(source)]  # noqa: E731
    monkeypatch.setattr(TorchgeoSource, "all_labels", several)
    for one, many in zip(sides, labelled_sides(named, seed=0), strict=True):
        assert many.labels.shape == (9, 4) and np.array_equal(many.labels.argmax(1), one.labels)
        assert many.labels.sum() == 9 and many.classes == one.classes


@pytest.mark.parametrize("names", [("beach",), ("dam", "dam")])
def test_splits_whose_classes_cannot_be_matched_are_refused(tmp_path, monkeypatch, names):
    root = draw_millionaid(tmp_path, {"train": ("apron", "beach", "dam"), "test": ("beach", "dam")})
    own = TorchgeoSource.classes.fget
    monkeypatch.setattr(
        TorchgeoSource, "classes", property(lambda source: names if len(own(source)) == 2 else own(source))
    )
    with pytest.raises(UsageError, match=rf"test once \({', '.join(names)}\): they cannot be matched"):
        labelled_sides(parse_name(f"torchgeo:MillionAID?root={root}"), seed=0)


def test_images_come_in_the_order_of_their_files_whatever_the_disks(tmp_path, monkeypatch):
    root = draw_millionaid(tmp_path, {"train": ("beach", "dam")})
    named, listed = parse_name(f"torchgeo:MillionAID?root={root}"), glob.glob
    for turn in (1, -1):
        monkeypatch.setattr(
            "torchgeo.datasets.millionaid.glob.glob", lambda path, turn=turn: sorted(listed(path))[::turn]
        )
        source = TorchgeoSource(named)
        names = [source.name(i) for i in range(len(source))]
        assert names == sorted(str(path) for path in root.rglob("*.jpg"))
        for i, name in enumerate(names):
            with Image.open(name) as image:
                assert np.array_equal(source.decode(i).pixels, np.asarray(image))
        assert source.all_labels().tolist() == [1, 1, 1, 0, 0, 0]  # land/dam, land/wet/beach


def test_sides_of_a_set_without_splits_are_those_of_the_folder(tmp_path):
    counts = {"beach": 10, "forest": 5, "river": 2}
    root = draw_patternnet(tmp_path, counts)
    named = parse_name(f"torchgeo:PatternNet?root={root}")
    for seed in (0, 4):
        sides = labelled_sides(named, seed=seed)
        folder = LabelledFolder(root / "PatternNet" / "images").split(seed=seed)
        for ours, theirs in zip(sides, folder, strict=True):
            assert [ours.name(i) for i in range(len(ours))] == [theirs.name(i) for i in range(len(theirs))]
            assert ours.labels.tolist() == theirs.labels.tolist() and ours.classes == theirs.classes
    with pytest.raises(UsageError, match="class river has one image"):
        labelled_sides(
            parse_name(f"torchgeo:PatternNet?root={draw_patternnet(tmp_path / 'b', {'lake': 3, 'river': 1})}"), seed=0
        )


@pytest.mark.parametrize(("bands", "count"), [("s1", 2), ("s2", 12), ("all", 14)])
@pytest.mark.parametrize("classes", [19, 43])
def test_big_earth_net_has_several_classes_an_image(tmp_path, bands, count, classes):
    root = big_earth_net(tmp_path, (5, 1, 3), radar=True)
    named = parse_name(f"torchgeo:BigEarthNet?root={root}&bands={bands}&num_classes={classes}")
    train, test = labelled_sides(named, seed=0)
    assert (len(train), len(test), train.bands, train.dtype) == (5, 3, count, torch.float32)
    assert train.labels.shape == (5, classes) and train.labels.dtype == np.float32
    own = build_dataset(named.of_split("train"))
    assert np.array_equal(train.labels, np.stack([own[i]["label"].numpy() for i in range(5)]))
    assert np.array_equal(train.decode(2).pixels, np.moveaxis(own[2]["image"].numpy(), 0, -1))
    assert [train.classes[k] for k in np.flatnonzero(train.labels[1])] == ["Coniferous forest"]
    # image 0 is of Airports alone, which the 19 classes leave out: no class at all
    assert train.labels[0].sum() == (classes == 43)


def test_big_earth_net_v2_names_its_classes(tmp_path, monkeypatch):
    rows = big_earth_net_v2(tmp_path)
    # reading Parquet takes a package that cmid does not ask for; all else is torchgeo's own
    monkeypatch.setattr("pandas.read_parquet", lambda path: pandas.DataFrame(rows))
    train, test = labelled_sides(parse_name(f"torchgeo:BigEarthNetV2?root={tmp_path}&bands=s2"), seed=0)
    assert (len(train), len(test), train.bands, len(train.classes)) == (4, 2, 12, 19)
    assert [train.classes[k] for k in np.flatnonzero(train.labels[2])] == [
        "Industrial or commercial units", "Coniferous forest",
    ]  # fmt: skip


def test_a_package_that_a_set_needs_is_named(tmp_path, monkeypatch):
    big_earth_net_v2(tmp_path, (1, 0, 0))

    def unable(path):
        raise ImportError("Missing optional dependency 'pyarrow'.")

    monkeypatch.setattr("pandas.read_parquet", unable)  # as pandas says it where there is none
    with pytest.raises(UsageError, match=r"BigEarthNetV2 needs a package that is not installed: .*pyarrow"):
        build_dataset(parse_name(f"torchgeo:BigEarthNetV2?root={tmp_path}&bands=s2"))


def test_a_set_whose_target_is_no_class_is_asked_for_its_label(tmp_path):
    for number, name in enumerate(("airport", "beach")):
        for i in range(3):
            (tmp_path / "vision" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "sound" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (90 * number, i, 0)).save(tmp_path / "vision" / name / f"{i}.jpg")
            wavfile.write(tmp_path / "sound" / name / f"{i}.wav", 8000, np.zeros(80, np.int16))
    train, test = labelled_sides(parse_name(f"torchgeo:ADVANCE?root={tmp_path}"), seed=0)
    assert train.classes == ("airport", "beach")
    assert train.labels.tolist() == [0, 0, 1, 1] and test.labels.tolist() == [0, 1]


def test_a_damaged_file_is_a_bad_image(tmp_path):
    draw_resisc(tmp_path)
    source = TorchgeoSource(parse_name(f"torchgeo:UCMerced?root={tmp_path}"))
    with open(source.name(3), "wb") as file:  # noqa: PTH123
        file.write(b"gone")
    with pytest.raises(BadImage, match="beach03"):
        source.decode(3)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("torchgeo:EuroSAd", "Did you mean EuroSAT"),
        ("torchgeo:NAIP", "one of large scenes"),
        ("torchgeo:EuroSAT?rot=1", "no argument 'rot'.*Did you mean root"),
        ("torchgeo:EuroSAT?root=/nowhere", "finds no files of EuroSAT.*download=true"),
        ("torchgeo:EuroSAT?split=everything", "refuses"),
        ("torchgeo:EuroSAT?root=[", "cannot be read"),
    ],
)
def test_what_cannot_be_had_is_said(name, answer):
    with pytest.raises(UsageError, match=answer):
        build_dataset(parse_name(name))


def test_a_sample_without_such_an_image_is_told(tmp_path):
    with pytest.raises(UsageError, match="samples hold image, label"):
        TorchgeoSource(parse_name(f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path)}&key=mask"))


def test_what_is_measured_of_a_side_are_its_own_images(tmp_path):
    named = parse_name(f"torchgeo:EuroSAT?root={draw_eurosat(tmp_path)}")
    train, _ = labelled_sides(named, seed=0)
    places = np.array([1, 4, 7])
    side = TorchgeoSide(train.source, places, train.labels[places], train.classes)
    found = {float(side.sample(i)[0][0, 1, 0]) for i in range(len(side))}
    assert found == {float(train.source.sample_at(int(place))[0][0, 1, 0]) for place in places}
    assert len(found) == 3


class Samples:
    """What torchgeo would give: `images` `(C, H, W)`, one after another; None for a sample without one."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = self.images[i]
        if isinstance(image, Exception):
            raise image
        return {"label": 0} if image is None else {"image": torch.as_tensor(image)}


@pytest.fixture
def source_of(monkeypatch):
    """A source of such samples."""

    def build(images):
        monkeypatch.setattr("cmid.data.torchgeo_datasets.build_dataset", lambda named: Samples(images))
        return TorchgeoSource(parse_name("torchgeo:Made"))

    return build


def of_bands(count, bands=3, top=255):
    return [np.full((bands, 24, 24), 1.0 + i % top, np.float32) for i in range(count)]


def spoiled(images, **at):
    return [at.get(f"_{i}", image) for i, image in enumerate(images)]


def test_a_damaged_sample_among_those_looked_at_is_passed_over(tmp_path, source_of):
    draw_resisc(tmp_path)
    named = parse_name(f"torchgeo:UCMerced?root={tmp_path}")
    files = [TorchgeoSource(named).name(i) for i in range(8)]
    Path(files[3]).write_bytes(b"gone")
    source = TorchgeoSource(named)
    assert (len(source), source.bands, source.is_bytes) == (8, 3, True)
    with pytest.raises(BadImage, match="beach03"):
        source.decode(3)
    for file in files:
        Path(file).write_bytes(b"gone")
    with pytest.raises(CmidError, match=r"none of 8 images .* UCMerced can be read, first .*beach00.*beach01") as error:
        TorchgeoSource(named)
    assert not isinstance(error.value, (BadImage, UsageError))
    # of 40 images 0, 5, 11 ... are looked at: what stands beside the damaged ones says that these are no colours
    deep = source_of(spoiled(of_bands(40), _0=OSError("torn"), _1=np.full((3, 24, 24), 900.0), _39=OSError("torn")))
    assert deep.bands == 3 and not deep.is_bytes


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (np.ones((1, 24, 24)), "expected 3 bands, as images looked at first have; found 1"),
        (np.ones((2, 24, 24)), "found 2"),
        (np.full((3, 24, 24), 300.0), "expected whole numbers from 0 to 255.* found 300 to 300"),
        (np.full((3, 24, 24), -1.0), "found -1 to -1"),
        (np.full((3, 24, 24), 0.5), "found 0.5 to 0.5"),
        (np.full((3, 24, 24), np.nan), "found nan"),
        (None, "gives nothing as 'image'"),
        (np.ones((24, 24)), r"gives a shape of \(24, 24\) as 'image'"),
    ],
)
@pytest.mark.parametrize("place", [1, 0])
def test_a_sample_unlike_those_looked_at_is_a_bad_image(source_of, odd, reason, place):
    later, among = place == 1, odd is None or len(odd) != 3  # 0 is looked at, 1 is not
    images = of_bands(40)
    images[place] = odd
    source = source_of(images)
    assert source.bands == 3 and source.is_bytes == (later or among)
    if not source.is_bytes:
        return
    for read in (source.decode, source.sample_at):
        with pytest.raises(BadImage, match=rf"torchgeo:Made\[{place}\]: .*{reason}"):
            read(place)
    loader = ViewLoader(source, SMALL, batch_size=8, seed=0, workers=1, max_bad_share=0.5)
    assert place not in torch.cat([batch.indices for batch in loader]) and list(loader.skipped) == [place]
    loader.close()


def test_a_sample_of_other_bands_among_deep_ones_is_a_bad_image(source_of):
    source = source_of(spoiled(of_bands(40, bands=5, top=3000), _0=np.ones((1, 24, 24)), _7=np.ones((6, 24, 24))))
    assert (source.bands, source.is_bytes) == (5, False)
    assert source.decode(6).pixels.shape == (24, 24, 5)
    for place, found in ((0, 1), (7, 6)):
        with pytest.raises(BadImage, match=f"expected 5 bands, .* found {found}"):
            source.decode(place)
