"""Small GeoTIFFs of every kind that scenes come as, written by rasterio."""

import numpy as np
import rasterio


def write_raster(
    path, values, *, crs="EPSG:32632", nodata=None, names=None, tiled=True, driver="GTiff", pixel=10.0, **profile
):  # fmt: skip
    """`values` `(C, H, W)` as a GeoTIFF; gives the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    if tiled and driver == "GTiff":
        profile |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    with rasterio.open(
        path, "w", driver=driver, width=width, height=height, count=bands, dtype=values.dtype, crs=crs,
        transform=rasterio.Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000), nodata=nodata, **profile,
    ) as raster:  # fmt: skip
        raster.write(values)
        for i, name in enumerate(names or (), 1):
            raster.set_band_description(i, name)
    return path


def numbered(bands, height, width, dtype=np.uint16):
    """Values that say where they are: 1 + band + 2 * column + 4 * row, within the type."""
    band, row, column = np.ogrid[:bands, :height, :width]
    return (1 + band + 2 * column + 4 * row).astype(dtype)
