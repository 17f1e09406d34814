"""Tiny copies of the ISPRS benchmarks, with the names of their folders and zips."""

import io
import zipfile

import numpy as np
import rasterio
from PIL import Image

from cmid.data.isprs import BENCHMARKS, COLOURS

SIDE = 96


def tile_labels(seed, side=SIDE):
    """Blocks of all six classes, `(side, side)` uint8."""
    blocks = np.random.default_rng(seed).integers(6, size=(side // 12, side // 12)).astype(np.uint8)
    blocks[0, :6] = np.arange(6)
    return np.kron(blocks, np.ones((12, 12), np.uint8))


def tile_image(seed, side=SIDE):
    """Smooth colours that differ from tile to tile."""
    y, x = np.mgrid[:side, :side]
    return np.stack([(x + seed) % 256, (y + 2 * seed) % 256, (x + y) % 256], -1).astype(np.uint8)


def coloured(labels, eroded=False):
    """As the benchmark colours them; eroded ones with black lines."""
    colours = np.array(COLOURS, np.uint8)[labels]
    if eroded:
        colours[::12] = colours[:, ::12] = 0
    return colours


def tif(array, place=None):
    """Bytes of a TIFF; with `place`, a GeoTIFF there."""
    if place is None:
        out = io.BytesIO()
        Image.fromarray(array).save(out, "TIFF", compression="tiff_lzw")
        return out.getvalue()
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=array.shape[1], height=array.shape[0], count=3, dtype="uint8", crs="EPSG:32633",
            transform=rasterio.Affine(0.05, 0, place[0], 0, -0.05, place[1]), compress="deflate", photometric="RGB",
        ) as raster:  # fmt: skip
            raster.write(np.moveaxis(array, -1, 0))
        return memory.read()


def potsdam_files(tiles=None, side=SIDE):
    """Contents of each of the zips in Potsdam.zip, by path."""
    zips = {"2_Ortho_RGB.zip": {}, "5_Labels_all.zip": {}, "5_Labels_all_noBoundary.zip": {}}
    for seed, tile in enumerate(tiles or BENCHMARKS["potsdam"].tiles):
        image, labels = tile_image(seed, side), tile_labels(seed, side)
        zips["2_Ortho_RGB.zip"][f"2_Ortho_RGB/top_potsdam_{tile}_RGB.tif"] = tif(image, (370_000, 5_800_000 + seed))
        zips["5_Labels_all.zip"][f"top_potsdam_{tile}_label.tif"] = tif(coloured(labels))
        eroded = tif(coloured(labels, eroded=True))
        zips["5_Labels_all_noBoundary.zip"][f"top_potsdam_{tile}_label_noBoundary.tif"] = eroded
    return zips


def vaihingen_files(side=SIDE):
    """Contents of the zips of Vaihingen, by path."""
    first, eroded, full = (f"ISPRS_semantic_labeling_Vaihingen{end}.zip" for end in (
        "", "_ground_truth_eroded_COMPLETE", "_ground_truth_COMPLETE"
    ))  # fmt: skip
    zips = {first: {}, eroded: {}, full: {}}
    for seed, tile in enumerate((*BENCHMARKS["vaihingen"].tiles, "area9")):
        labels = tile_labels(seed, side)
        if tile != "area9":
            zips[first][f"top/top_mosaic_09cm_{tile}.tif"] = tif(tile_image(seed, side))
            zips[first][f"dsm/dsm_09cm_matching_{tile}.tif"] = b"heights, which nobody reads"
            zips[full][f"top_mosaic_09cm_{tile}.tif"] = tif(coloured(labels))
        zips[eroded][f"top_mosaic_09cm_{tile}_noBoundary.tif"] = tif(coloured(labels, eroded=True))
    return zips


def zipped(contents):
    """Bytes of a zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return out.getvalue()


def write_potsdam_zip(path, zips):
    """`Potsdam.zip` with the zips in it."""
    nested = {f"Potsdam/{name}": zipped(contents) for name, contents in zips.items()}
    nested["Potsdam/1_DSM.zip"] = b"no zip at all, and not to be opened"
    path.write_bytes(zipped(nested))
    return path


def write_folders(root, zips):
    """Everything unpacked."""
    for name, contents in zips.items():
        for inner, data in contents.items():
            path = root / name.removesuffix(".zip") / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root
