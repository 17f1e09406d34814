"""torchgeo's data sets of several dates, on tiny copies of the layouts that its classes expect."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from torchgeo.datasets import SSL4EOS12, SeasonalContrastS2

from cmid.commands.dates import with_dates
from cmid.commands.sources import open_source
from cmid.config import PretrainConfig, ViewConfig
from cmid.data.decode import BadImage
from cmid.data.places import Places
from cmid.data.torchgeo_datasets import TorchgeoSource, parse_name
from cmid.data.views import ViewLoader
from cmid.errors import UsageError
from tests.data.rasters_on_disk import write_raster

DATES = ("20180410T100031_20180410T100026_T33TVF", "20180718T095029_20180718T095031_T33TVF", "20181231T095411_x_T33TVF")


def draw_seco(root, places=3, greatest=1):
    """Bands of 264 px; a band's value tells place, date and band; `greatest` multiplies all."""
    for place in range(places):
        for d, date in enumerate(DATES):
            for b, band in enumerate(SeasonalContrastS2.all_bands):
                values = np.full((1, 264, 264), greatest * (60 * place + 20 * d + b), np.uint16)
                values[:, ::2] += 3
                write_raster(root / f"seasonal_contrast_100k/{place:06}" / date / f"{band}.tif", values)
    return root


def draw_ssl4eo(root, split, bands, places=2):
    for place in range(places):
        for d, date in enumerate(DATES[:2]):
            for b, band in enumerate(bands):
                values = np.full((1, 88, 88), 1000 * place + 100 * d + b, np.uint16)
                write_raster(root / split / f"{place:07}" / date / f"{band}.tif", values)
    return root


@pytest.fixture(scope="module")
def seco(tmp_path_factory):
    return draw_seco(tmp_path_factory.mktemp("seco"))


def test_each_date_of_each_place_is_an_image(seco):
    source = TorchgeoSource(parse_name(f"torchgeo:SeasonalContrastS2?root={seco}"))
    assert (len(source), source.bands, source.is_bytes, source.names) == (9, 3, True, ("B4", "B3", "B2"))
    bands = [SeasonalContrastS2.all_bands.index(band) for band in source.names]
    for i in range(9):
        place, d = divmod(i, 3)
        assert source.decode(i).pixels[1, 0].tolist() == [60 * place + 20 * d + b for b in bands]
        assert source.name(i) == str(seco / f"seasonal_contrast_100k/{place:06}" / DATES[d])
    assert source.patches()[4] == ("000001", DATES[1])


def test_the_image_is_the_one_that_torchgeos_own_class_gives(seco):
    theirs = SeasonalContrastS2(seco, seasons=3, bands=("B8", "B11"))[2]["image"]
    ours = TorchgeoSource(parse_name(f"torchgeo:SeasonalContrastS2?root={seco}&bands=B8,B11"))
    dates = {tuple(ours._values(6 + d).ravel()) for d in range(3)}
    assert dates == {tuple(pair.numpy().ravel()) for pair in theirs.split(2)}


def test_places_are_put_together_for_a_temporal_method(seco):
    data = f"torchgeo:SeasonalContrastS2?root={seco}"
    opened = with_dates(open_source(PretrainConfig(data=data, method="seco")))
    places = opened.source
    assert isinstance(places, Places) and len(places) == 3
    assert opened.notes[-1] == "3 places, each seen at 3 dates"
    assert places.name(2) == "000002" and places.date_count(2) == 3
    loader = ViewLoader(
        places, ViewConfig(size=16), batch_size=3, seed=0, workers=0, crops=4, dates=(0, 1, 2, 0)
    )  # fmt: skip
    batch = next(iter(loader))
    levels = torch.stack([crop.images[:, 2].float().mean((1, 2)) for crop in batch])  # band B2, number 1
    dates = ((levels - 1) % 60 // 20).long()
    assert torch.equal((levels - 1).long() // 60, batch.indices.expand(4, 3))
    assert torch.equal(dates[0], dates[3]) and sorted(dates[:3, 0].tolist()) == [0, 1, 2]


def test_deep_bands_are_measured_over_all_dates(tmp_path):
    data = f"torchgeo:SeasonalContrastS2?root={draw_seco(tmp_path, 2, greatest=30)}&bands=B4,B8"
    opened = with_dates(open_source(PretrainConfig(data=data, method="seco")))
    assert opened.config.in_chans == 2 and len(opened.config.views.low) == 2
    pixels = opened.source.decode_date(1, 2).pixels
    assert pixels.dtype == np.float32 and 0.9 < pixels.mean() < 1.2, "the brightest place and date"


def test_what_is_missing_is_told(seco, tmp_path):
    draw_seco(tmp_path)
    (tmp_path / "seasonal_contrast_100k/000001" / DATES[1] / "B3.tif").unlink()
    source = TorchgeoSource(parse_name(f"torchgeo:SeasonalContrastS2?root={tmp_path}&bands=B4,B8"))
    assert len(source) == 9
    lacking = TorchgeoSource(parse_name(f"torchgeo:SeasonalContrastS2?root={seco}"))
    lacking.dataset.folder = tmp_path / "seasonal_contrast_100k"
    with pytest.raises(BadImage, match=DATES[1]):
        lacking.decode(4)
    with pytest.raises(UsageError, match="takes no argument 'seasons'"):
        TorchgeoSource(parse_name(f"torchgeo:SeasonalContrastS2?root={seco}&seasons=3"))
    with pytest.raises(UsageError, match=r"finds no files of SeasonalContrastS2 in root='.*nowhere'"):
        TorchgeoSource(parse_name(f"torchgeo:SeasonalContrastS2?root={tmp_path / 'nowhere'}"))


@pytest.mark.parametrize("split", ["s1", "s2a"])
def test_ssl4eo(tmp_path, split):
    bands = SSL4EOS12.metadata[split]["bands"]
    data = f"torchgeo:SSL4EOS12?root={draw_ssl4eo(tmp_path, split, bands)}&split={split}"
    opened = with_dates(open_source(PretrainConfig(data=data, method="seco")))
    assert (len(opened.source), opened.config.in_chans) == (2, len(bands))
    dataset = opened.source.source.dataset
    assert dataset[3]["image"].shape == (len(bands), 264, 264)
    assert dataset[3]["image"][:, 0, 0].tolist() == [1100 + b for b in range(len(bands))]
    assert dataset.file_of(3) == str(tmp_path / split / "0000001" / DATES[1])


def test_a_band_that_names_another_file_is_not_followed(tmp_path):
    bands = SSL4EOS12.metadata["s2c"]["bands"]
    root = draw_ssl4eo(tmp_path / "ssl4eo", "s2c", bands)
    source = TorchgeoSource(parse_name(f"torchgeo:SSL4EOS12?root={root}&split=s2c"))
    secret = write_raster(tmp_path / "secret.tif", np.full((1, 88, 88), 42, np.uint16))
    (root / "s2c/0000001" / DATES[0] / f"{bands[2]}.tif").write_text(
        '<VRTDataset rasterXSize="88" rasterYSize="88"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{secret}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    read = []
    for i in range(len(source)):
        with suppress(BadImage):
            read.append(source.decode(i).pixels)
    assert len(read) == len(source) - 1
