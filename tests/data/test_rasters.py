import os
import pickle
import sys

import numpy as np
import pytest
import rasterio
from rasterio._env import get_gdal_config
from torch.utils.data import DataLoader

from cmid.data.decode import BadImage
from cmid.data.rasters import (
    CACHE_BYTES,
    GDAL,
    OPEN_AT_ONCE,
    OpenRasters,
    choose_bands,
    driver_of,
    find_rasters,
    name_for_gdal,
    read_header,
    unlike_names,
)
from cmid.errors import UsageError
from tests.data.rasters_on_disk import numbered, write_raster


def test_a_header_says_size_type_names_and_crs(tmp_path):
    path = write_raster(tmp_path / "a.tif", numbered(4, 80, 120), names=("blue", "green", "red", "nir"))
    header = read_header(str(path))
    assert (header.width, header.height, header.bands, header.dtype) == (120, 80, 4, "uint16")
    assert header.names == ("blue", "green", "red", "nir")
    assert header.crs == "EPSG:32632"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("tiled", [True, False])
def test_a_window_is_what_rasterio_reads(tmp_path, dtype, tiled):
    path = str(write_raster(tmp_path / "a.tif", numbered(3, 90, 70, dtype), tiled=tiled))
    values, valid = OpenRasters().read(path, (3, 1), (11, 5, 43, 30))
    with rasterio.open(path) as raster:
        assert np.array_equal(values, raster.read([3, 1])[:, 5:30, 11:43])
    assert values.dtype == dtype and valid.all() and valid.shape == (25, 32)


def test_cog_and_jpeg_2000_are_read(tmp_path):
    values = numbered(3, 128, 128, "uint8")
    for name, driver, more in (("a.tif", "COG", {}), ("a.jp2", "JP2OpenJPEG", {"QUALITY": "100", "REVERSIBLE": "YES"})):
        path = str(write_raster(tmp_path / name, values, driver=driver, **more))
        assert np.array_equal(OpenRasters().read(path, (1, 2, 3), (5, 6, 50, 60))[0], values[:, 6:60, 5:50])


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("uint16", 65535), ("int16", -9999), ("float32", np.nan), ("float32", -9999.0)]
)
def test_nodata_in_any_band_is_not_valid(tmp_path, dtype, nodata):
    values = numbered(2, 64, 64, dtype)
    values[0, 10:20, :] = nodata
    values[1, :, 30:40] = nodata
    path = str(write_raster(tmp_path / "a.tif", values, nodata=nodata))
    _, valid = OpenRasters().read(path, (1, 2), (0, 0, 64, 64))
    expected = np.ones((64, 64), bool)
    expected[10:20] = expected[:, 30:40] = False
    expected &= (values != nodata).all(0)
    with rasterio.open(path) as raster:
        assert np.array_equal(expected, (raster.read_masks() > 0).all(0))
    assert np.array_equal(valid, expected)


def test_nan_is_never_valid_and_an_impossible_nodata_hides_nothing(tmp_path):
    values = numbered(1, 64, 64, "float32")
    values[0, 3, 4] = np.nan
    values[0, 5, 6] = np.inf
    path = str(write_raster(tmp_path / "a.tif", values))
    _, valid = OpenRasters().read(path, (1,), (0, 0, 64, 64))
    assert np.argwhere(~valid).tolist() == [[3, 4], [5, 6]]
    values = numbered(1, 64, 64, "int16")
    path = str(write_raster(tmp_path / "b.tif", values, nodata=-32768))
    assert OpenRasters().read(path, (1,), (0, 0, 64, 64))[1].all()


def test_a_mask_band_and_an_alpha_band_hide_pixels(tmp_path):
    path = tmp_path / "mask.tif"
    write_raster(path, numbered(1, 64, 64, "uint8"))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        mask = np.full((64, 64), 255, np.uint8)
        mask[:8] = 0
        raster.write_mask(mask)
    assert OpenRasters().read(str(path), (1,), (0, 0, 64, 64))[1].sum() == 56 * 64
    rgba = np.full((4, 64, 64), 9, np.uint8)
    rgba[3, :, :16] = 0
    path = write_raster(tmp_path / "alpha.tif", rgba, photometric="RGB", alpha="YES")
    header = read_header(str(path))
    assert header.alpha == (4,) and choose_bands([header], ()) == {str(path): (1, 2, 3)}
    assert OpenRasters().read(str(path), (1, 2, 3), (0, 0, 64, 64))[1].sum() == 48 * 64
    # near infrared that GDAL took for transparency: asked for, it hides nothing
    values, valid = OpenRasters().read(
        str(path), choose_bands([header], ("1", "2", "3", "4"))[str(path)], (0, 0, 64, 64)
    )
    assert np.array_equal(values, rgba) and valid.all()
    named = write_raster(tmp_path / "nir.tif", rgba, names=("red", "green", "blue", "nir"))
    assert read_header(str(named)).alpha == ()


def half_masked(path, **kind):
    """A scene whose mask, which hides the upper half, lies beside it."""
    write_raster(path, numbered(2, 64, 64, "uint8"), **kind)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as raster:
        mask = np.full((64, 64), 255, np.uint8)
        mask[:32] = 0
        raster.write_mask(mask)
    assert path.with_name(path.name + ".msk").is_file()
    return str(path)


LOSSLESS = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}


@pytest.mark.parametrize(("name", "kind"), [("a.tif", {}), ("a.jp2", LOSSLESS)])
def test_a_mask_beside_the_file_hides_pixels(tmp_path, name, kind):
    path = half_masked(tmp_path / name, **kind)
    _, valid = OpenRasters().read(path, (1, 2), (0, 0, 64, 64))
    assert not valid[:32].any() and valid[32:].all()


@pytest.mark.parametrize(("name", "kind"), [("a.tif", {}), ("a.jp2", LOSSLESS)])
def test_nodata_and_names_beside_the_file_count(tmp_path, name, kind):
    values = numbered(2, 64, 64, "uint8") | 1
    values[1, :10] = 0
    path = write_raster(tmp_path / name, values, **kind)
    path.with_name(name + ".aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Description>red</Description></PAMRasterBand><PAMRasterBand band="2">'
        "<Description>nir</Description><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    assert read_header(str(path)).names == ("red", "nir")
    _, valid = OpenRasters().read(str(path), (1, 2), (0, 0, 64, 64))
    assert not valid[:10].any() and valid[10:].all()


def test_a_mask_that_is_no_tiff_is_refused(tmp_path):
    path = half_masked(tmp_path / "a.tif")
    (tmp_path / "a.tif.msk").write_text('<VRTDataset rasterXSize="64" rasterYSize="64"></VRTDataset>')
    for read in (read_header, lambda path: OpenRasters().read(path, (1,), (0, 0, 9, 9))):
        with pytest.raises(BadImage, match=r"mask a.tif.msk is no TIFF"):
            read(path)


def in_process(see):
    """What a caller sees of GDAL's settings."""
    return [get_gdal_config(key) for key in (*GDAL, "GDAL_CACHEMAX")] if see else None


@pytest.mark.parametrize("own", [{}, {"VSI_CACHE": "TRUE"}])
def test_a_callers_own_use_of_rasterio_is_not_touched(tmp_path, own):
    paths = [str(write_raster(tmp_path / f"{i}.tif", numbered(1, 64, 64))) for i in range(3)]
    rasters = OpenRasters()
    with rasterio.Env(**own):
        before = in_process(True)
        read_header(paths[0])
        for path in paths:
            rasters.read(path, (1,), (0, 0, 4, 4))
        assert in_process(True) == before
    assert get_gdal_config("GDAL_DISABLE_READDIR_ON_OPEN") is None


class Settings:
    """What GDAL's settings are in a loader process after each read."""

    def __init__(self, paths):
        self.paths, self.rasters = paths, OpenRasters()

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        self.rasters.read(self.paths[i], (1,), (0, 0, 4, 4))
        return get_gdal_config("GDAL_CACHEMAX"), get_gdal_config("GDAL_DISABLE_READDIR_ON_OPEN")


def test_a_loader_process_keeps_a_small_cache_in_bytes(tmp_path):
    paths = [str(write_raster(tmp_path / f"{i}.tif", numbered(1, 64, 64))) for i in range(3)]
    before = get_gdal_config("GDAL_CACHEMAX")
    seen = list(DataLoader(Settings(paths), batch_size=None, num_workers=1))
    assert seen == [[CACHE_BYTES, "EMPTY_DIR"]] * 3 and CACHE_BYTES == 64 << 20
    assert get_gdal_config("GDAL_CACHEMAX") == before


def test_a_mask_of_the_whole_file_is_read_once_for_all_bands(tmp_path, monkeypatch):
    path = str(write_raster(tmp_path / "mask.tif", numbered(3, 64, 64, "uint8")))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        mask = np.full((64, 64), 255, np.uint8)
        mask[:8] = 0
        raster.write_mask(mask)
    reads = []

    class Counted:
        def __init__(self, raster):
            self.raster = raster

        def __getattr__(self, name):
            return getattr(self.raster, name)

        def read_masks(self, band, **where):
            reads.append(band)
            return self.raster.read_masks(band, **where)

    opened = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda *each, **more: Counted(opened(*each, **more)))
    assert OpenRasters().read(path, (1, 2, 3), (0, 0, 64, 64))[1].sum() == 56 * 64
    assert len(reads) == 1


@pytest.mark.parametrize(("nodata", "hidden"), [(300, False), (0.5, False), (7, True)])
def test_a_nodata_value_that_the_type_cannot_hold_equals_no_pixel(nodata, hidden):
    from cmid.data.nodata import _in_type

    number = _in_type(nodata, np.dtype("uint8"))
    assert (number is not None) == hidden
    assert not hidden or (number == 7 and number.dtype == np.uint8)


def test_bands_are_chosen_by_number_or_name_in_each_scene(tmp_path):
    a = read_header(str(write_raster(tmp_path / "a.tif", numbered(3, 64, 64), names=("red", "green", "nir"))))
    b = read_header(str(write_raster(tmp_path / "b.tif", numbered(4, 64, 64), names=("nir", "x", "red", "green"))))
    assert choose_bands([a, b], ("NIR", "red")) == {a.path: (3, 1), b.path: (1, 3)}
    assert choose_bands([a, b], ("2",)) == {a.path: (2,), b.path: (2,)}
    assert choose_bands([a], ()) == {a.path: (1, 2, 3)}
    with pytest.raises(UsageError, match=r"differ in their number of bands \(1 with 3, 1 with 4: .*b.tif\)"):
        choose_bands([a, b], ())
    with pytest.raises(UsageError, match="Did you mean green"):
        choose_bands([a, b], ("gren",))
    with pytest.raises(UsageError, match=r"asks for band 4, but .*a.tif has 3"):
        choose_bands([a, b], ("4",))
    c = read_header(str(write_raster(tmp_path / "c.tif", numbered(3, 64, 64, "uint8"))))
    with pytest.raises(UsageError, match=r"several number types \(1 uint16, 1 uint8: .*c.tif\)"):
        choose_bands([a, c], ("1",))


def test_the_same_names_in_another_order_are_the_same_bands(tmp_path):
    def header(name, *names):
        return read_header(str(write_raster(tmp_path / f"{name}.tif", numbered(3, 64, 64), names=names)))

    a, b = header("a", "Blue", "Green", "Red"), header("b", "red", "blue", "green")
    assert choose_bands([a, b], ()) == {a.path: (1, 2, 3), b.path: (2, 3, 1)}
    assert unlike_names([a, b], choose_bands([a, b], ())) == ""
    other, unnamed = header("c", "B4", "B3", "B2"), header("d")
    by_position = choose_bands([a, other, unnamed], ())
    assert set(by_position.values()) == {(1, 2, 3)}
    said = unlike_names([a, other, unnamed], by_position)
    assert "; choose bands with" in said and "; give names" in unlike_names([a, other], by_position, ("1", "2", "3"))
    assert said.startswith("1 of 3 scenes call their bands otherwise than") and "(B4, B3, B2)" in said
    assert unlike_names([a, unnamed], choose_bands([a, unnamed], ())) == "", "no name is no other name"
    assert unlike_names([a, b], choose_bands([a, b], ("1", "2", "3"))), "by number they are others"


def test_what_is_no_measurement_is_refused(tmp_path):
    path = write_raster(tmp_path / "c.tif", np.zeros((1, 64, 64), np.complex64))
    with pytest.raises(BadImage, match="complex64"):
        read_header(str(path))
    path = tmp_path / "palette.tif"
    write_raster(path, np.zeros((1, 64, 64), np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {0: (255, 0, 0)})
    with pytest.raises(BadImage, match="palette"):
        read_header(str(path))


def test_files_that_name_other_files_are_not_opened(tmp_path):
    write_raster(tmp_path / "a.tif", numbered(1, 64, 64))
    (tmp_path / "b.tif").write_text(
        f'<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{tmp_path / 'a.tif'}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(BadImage, match="not recognized"):
        read_header(str(tmp_path / "b.tif"))


def test_damage_is_told_with_its_reason(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 9999, (2, 256, 256), np.uint16))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    rasters = OpenRasters()
    with pytest.raises(BadImage) as caught:
        for y in range(0, 256, 64):
            rasters.read(str(path), (1, 2), (0, y, 64, y + 64))
    assert str(caught.value.path) == str(path) and caught.value.reason
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(BadImage, match="not recognized"):
        read_header(str(tmp_path / "text.tif"))
    with pytest.raises(BadImage, match="no such file"):
        read_header(str(tmp_path / "gone.tif"))


def test_a_scene_that_shrank_or_went_is_told(tmp_path):
    path = write_raster(tmp_path / "a.tif", numbered(1, 128, 128))
    write_raster(path, numbered(1, 64, 64))
    with pytest.raises(BadImage):
        OpenRasters().read(str(path), (1,), (64, 64, 128, 128))
    path.unlink()
    with pytest.raises(BadImage, match="no such file"):
        OpenRasters().read(str(path), (1,), (0, 0, 9, 9))


def test_only_so_many_rasters_stay_open_and_none_crosses_a_pickle(tmp_path):
    paths = [str(write_raster(tmp_path / f"{i}.tif", numbered(1, 64, 64))) for i in range(OPEN_AT_ONCE + 5)]
    rasters = OpenRasters()
    for path in paths:
        rasters.read(path, (1,), (0, 0, 4, 4))
    assert len(rasters._open) == OPEN_AT_ONCE and paths[0] not in rasters._open
    assert not pickle.loads(pickle.dumps(rasters))._open  # noqa: S301


def test_a_folder_a_list_and_one_file(tmp_path):
    a = write_raster(tmp_path / "deep" / "b.TIF", numbered(1, 64, 64))
    b = write_raster(tmp_path / "a.tif", numbered(1, 64, 64))
    assert find_rasters(tmp_path) == [str(b), str(a)]
    assert find_rasters(a) == [str(a)]
    (tmp_path / "list.txt").write_text("a.tif\n# no\ndeep/b.TIF\n")
    assert find_rasters(tmp_path / "list.txt") == [str(b), str(a)]
    (tmp_path / "far.txt").write_text("a.tif\nhttps://example.com/x.tif\n")
    with pytest.raises(UsageError, match=r"scenes\.remote true"):
        find_rasters(tmp_path / "far.txt")
    assert find_rasters(tmp_path / "far.txt", remote=True)[1] == "https://example.com/x.tif"
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no scenes in"):
        find_rasters(tmp_path / "none")
    with pytest.raises(UsageError, match="no such folder"):
        find_rasters(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"cannot look up .*: file name too long"):
        find_rasters(tmp_path / ("n" * 300))
    with pytest.raises(BadImage, match="file name too long"):
        read_header(str(tmp_path / f"{'n' * 300}.tif"))
    with pytest.raises(BadImage, match="file name too long"):
        OpenRasters().read(str(tmp_path / f"{'n' * 300}.tif"), (1,), (0, 0, 9, 9))


def test_gdal_gets_a_name_that_is_no_prefix_of_its_own():
    assert name_for_gdal("GTIFF_DIR:1:/vsis3/bucket/a.tif") == "./GTIFF_DIR:1:/vsis3/bucket/a.tif"
    for name in ("/data/a.tif", "https://host/a.tif?sig=b"):
        assert name_for_gdal(name) == name
    with pytest.raises(BadImage, match="begins with /vsi"):
        name_for_gdal("/vsicurl/http://host/a.tif")


def test_a_relative_path_is_called_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.tif").write_text("not a raster")
    for read in (read_header, lambda path: OpenRasters().read(path, (1,), (0, 0, 9, 9))):
        with pytest.raises(BadImage, match=r"^text.tif: not recognized"):
            read("text.tif")


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 here")
def test_a_folder_whose_name_is_not_utf8_may_be_worked_in(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", numbered(1, 64, 64))
    odd = tmp_path / os.fsdecode(b"\xff")
    odd.mkdir()
    path.rename(odd / "a.tif")
    monkeypatch.chdir(odd)
    assert read_header("a.tif").width == 64


def test_the_driver_of_an_address_is_not_that_of_its_signature():
    assert driver_of("https://host/B04.jp2?sig=a.tif") == driver_of("s3://b/B04.JP2") == "JP2OpenJPEG"
    assert driver_of("https://host/a.tif?name=B04.jp2") == driver_of("what?.tif") == "GTiff"
    assert driver_of("what?.jp2") == "JP2OpenJPEG", "files may be called so"
