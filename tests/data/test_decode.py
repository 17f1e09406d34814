import io
import pickle
import zlib

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from cmid.data import decode as decoding
from cmid.data.decode import BadImage, decode, look_at_header
from tests.data.conftest import picture


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp", "gif", "jp2"])
def test_every_suffix_gives_the_pixels_pillow_gives(tmp_path, suffix):
    path = saved(tmp_path, picture(1), f"a.{suffix}")
    found = decode(path)
    assert found.pixels.dtype == np.uint8 and found.pixels.flags.writeable and found.pixels.flags.c_contiguous
    assert (found.width, found.height, found.factor) == (48, 40, 1)
    with Image.open(path) as image:
        np.testing.assert_array_equal(found.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = picture(2).convert(mode)
    path = saved(tmp_path, image, "a.tif" if mode == "CMYK" else "a.png")
    np.testing.assert_array_equal(decode(path).pixels, np.asarray(image.convert("RGB")))


def test_cmyk_and_grey_jpeg(tmp_path):
    cmyk = saved(tmp_path, picture(2).convert("CMYK"), "cmyk.jpg", quality=95)
    assert np.abs(decode(cmyk).pixels.astype(int) - np.asarray(picture(2))).mean() < 8
    grey = decode(saved(tmp_path, picture(2).convert("L"), "grey.jpg")).pixels
    assert grey.shape == (40, 48, 3) and (grey[..., 0] == grey[..., 2]).all()


def test_alpha_is_dropped_not_composited(tmp_path):
    pixels = np.dstack([np.asarray(picture(3)), np.zeros((40, 48), np.uint8)])
    np.testing.assert_array_equal(
        decode(saved(tmp_path, Image.fromarray(pixels), "a.png")).pixels, np.asarray(picture(3))
    )


def test_palette_with_transparency_keeps_its_colours(tmp_path):
    image = picture(4).quantize(16)
    path = saved(tmp_path, image, "a.png", transparency=bytes([0] * 8 + [255] * 8))
    np.testing.assert_array_equal(decode(path).pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_stretched_over_their_own_range(tmp_path, suffix):
    values = np.linspace(200, 3000, 40 * 48).reshape(40, 48).astype(np.uint16)  # a 12-bit sensor
    pixels = decode(saved(tmp_path, Image.fromarray(values), f"a.{suffix}")).pixels
    low, high = np.percentile(values, (2, 98))
    expected = np.clip((values - low) / (high - low) * 255, 0, 255).round()
    assert np.abs(pixels[..., 0] - expected).max() <= 1
    assert pixels.min() == 0 and pixels.max() == 255 and (pixels[..., 0] == pixels[..., 1]).all()


def test_int32_and_float_are_stretched(tmp_path):
    ramp = np.linspace(-5, 7, 40 * 48, dtype=np.float32).reshape(40, 48)
    ramp[0, 0] = np.nan
    pixels = decode(saved(tmp_path, Image.fromarray(ramp), "float.tif")).pixels
    assert pixels[0, 0, 0] == 0 and pixels[-1, -1, 0] == 255 and 120 < pixels[20, 24, 0] < 136
    whole = (np.arange(40 * 48).reshape(40, 48) * 1000).astype(np.int32)
    pixels = decode(saved(tmp_path, Image.fromarray(whole), "int.tif")).pixels
    assert pixels.max() == 255 and 120 < pixels[20, 24, 0] < 136


def test_zeros_and_constants_of_sixteen_bits(tmp_path):
    values = np.zeros((40, 48), np.uint16)
    assert decode(saved(tmp_path, Image.fromarray(values), "zero.png")).pixels.max() == 0
    values[:, 24:] = 500
    pixels = decode(saved(tmp_path, Image.fromarray(values), "one.png")).pixels
    assert (pixels[:, :24] == 0).all() and (pixels[:, 24:] == 128).all()


@pytest.mark.parametrize("bands", [1, 3, 4, 7])
def test_geotiff_of_any_depth_and_bands(tmp_path, bands):
    rasterio = pytest.importorskip("rasterio")
    values = np.random.default_rng(0).integers(100, 4000, (bands, 20, 30)).astype(np.uint16)
    path = tmp_path / "scene.TIF"
    transform = rasterio.transform.Affine(10, 0, 500000, 0, -10, 4000000)
    with rasterio.open(
        path, "w", driver="GTiff", width=30, height=20, count=bands, dtype="uint16", transform=transform
    ) as scene:
        scene.write(values)
    pixels = decode(path).pixels
    used = np.moveaxis(values[:3] if bands >= 3 else values[:1].repeat(3, 0), 0, -1)
    low, high = np.percentile(used, (2, 98))
    assert np.abs(pixels - np.clip((used - low) / (high - low) * 255, 0, 255)).max() <= 1


@pytest.mark.parametrize(("dtype", "bands"), [("uint16", 3), ("uint16", 4), ("uint8", 3)])
def test_jpeg_2000_of_any_depth(tmp_path, dtype, bands):
    """Pillow reads deep colours as if they were of 8 bits, nearly black, and refuses some that GDAL has written."""
    values = np.random.default_rng(0).integers(0, 2000 if dtype == "uint16" else 256, (bands, 64, 64)).astype(dtype)
    with rasterio.open(
        tmp_path / "a.jp2", "w", driver="JP2OpenJPEG", width=64, height=64, count=bands, dtype=dtype, QUALITY=100,
        REVERSIBLE="YES", transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as raster:  # fmt: skip
        raster.write(values)
        if bands > 3:
            raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    pixels = decode(tmp_path / "a.jp2").pixels
    assert pixels.shape == (64, 64, 3) and 100 < pixels.mean() < 155
    if dtype == "uint8":
        np.testing.assert_array_equal(pixels, np.moveaxis(values, 0, -1))
    assert look_at_header(tmp_path / "a.jp2")[2] == ("colours" if dtype == "uint8" else "deep colours")


def test_nodata_does_not_count_in_the_stretch(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    values = np.linspace(1000, 2000, 600).reshape(1, 20, 30).astype(np.float32).repeat(3, 0)
    values[:, :, :15] = -9999
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=30, height=20, count=3, dtype="float32", nodata=-9999,
        transform=rasterio.transform.Affine(1, 0, 5, 0, -1, 5),
    ) as scene:  # fmt: skip
        scene.write(values)
    pixels = decode(tmp_path / "a.tif").pixels
    assert (pixels[:, :15] == 0).all() and 100 < pixels[10, 20, 0] < 155


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_applied(tmp_path, turn, suffix):
    image = picture(5)
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    path = saved(tmp_path, image, f"a.{suffix}", exif=exif, **options)
    found = decode(path, lambda width, height: 1)
    upright = {
        1: image, 2: image.transpose(0), 3: image.transpose(3), 4: image.transpose(1), 5: image.transpose(5),
        6: image.transpose(4), 7: image.transpose(6), 8: image.transpose(2),
    }[turn]  # fmt: skip
    assert (found.width, found.height) == upright.size
    assert np.abs(found.pixels.astype(int) - np.asarray(upright)).mean() < 4
    if suffix == "tif":
        return
    stored = decode(path, lambda width, height: 1, as_stored=True)
    assert (stored.width, stored.height) == image.size
    assert np.abs(stored.pixels.astype(int) - np.asarray(image)).mean() < 4


def test_one_pixel(tmp_path):
    for name in ("a.png", "a.jpg"):
        path = saved(tmp_path, Image.new("RGB", (1, 1), (10, 10, 10)), name)
        np.testing.assert_array_equal(decode(path, lambda width, height: 8).pixels, [[[10, 10, 10]]])


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp", "gif", "jp2"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.9])
def test_truncated_files_are_bad(tmp_path, suffix, share):
    buffer = io.BytesIO()
    names = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    picture(6).save(buffer, names.get(suffix, suffix.upper()))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    with pytest.raises(BadImage) as error:
        decode(path)
    assert error.value.path == path and error.value.reason and str(path) in str(error.value)


def test_text_and_missing_files_are_bad(tmp_path):
    for name in ("a.jpg", "a.tif"):
        (tmp_path / name).write_text("<VRTDataset/> no image")
        with pytest.raises(BadImage):
            decode(tmp_path / name)
    with pytest.raises(BadImage, match="no such file"):
        decode(tmp_path / "gone.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(BadImage):
        decode(tmp_path / "folder.jpg")


def test_a_tif_that_names_other_files_is_not_followed(tmp_path):
    pytest.importorskip("rasterio")
    picture(1).save(tmp_path / "secret.png")
    (tmp_path / "a.tif").write_text(
        '<VRTDataset rasterXSize="48" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{tmp_path / 'secret.png'}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(BadImage):
        decode(tmp_path / "a.tif")


def test_decompression_bombs_are_bounded(tmp_path, monkeypatch):
    path = saved(tmp_path, picture(1), "a.png")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 48 * 40 - 1)
    with pytest.raises(BadImage, match="tiles"):
        decode(path)
    monkeypatch.undo()
    data = bytearray(path.read_bytes())
    data[16:24] = (20000).to_bytes(4, "big") * 2  # the size its header claims
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(BadImage, match="more than"):
        decode(path)


def test_jpeg_shrinks_by_what_is_allowed_and_keeps_the_source_size(tmp_path):
    path = saved(tmp_path, picture(7, 301, 203), "a.jpg", quality=95)
    asked = []
    found = decode(path, lambda width, height: asked.append((width, height)) or 4)
    assert asked == [(301, 203)]
    assert (found.width, found.height, found.factor) == (301, 203, 4)
    assert found.pixels.shape == (51, 76, 3)
    blocks = decode(path).pixels[:200, :300].reshape(50, 4, 75, 4, 3).mean((1, 3))
    assert np.abs(found.pixels[:50, :75] - blocks).mean() < 1.5


def test_bad_image_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(BadImage("a.jpg", "truncated")))  # noqa: S301
    assert str(error.path) == "a.jpg" and error.reason == "truncated"
