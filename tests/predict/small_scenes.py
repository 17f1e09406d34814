"""Real scenes on disk, and small real models whose map of the whole scene is known."""

import threading

import numpy as np
import rasterio
import torch
from torch import nn

from cmid.predict.scene import Georeference

CRS = "EPSG:32632"
TRANSFORM = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)


class FileScene:
    """A GeoTIFF, read with a rasterio handle for each thread."""

    def __init__(self, path, bands=None):
        self.name, self._local = str(path), threading.local()
        with rasterio.open(path) as raster:
            self._bands = list(bands or range(1, raster.count + 1))
            self.width, self.height, self.dtype = raster.width, raster.height, raster.dtypes[0]
            self.place = Georeference.of(raster)
        self.bands = len(self._bands)
        self.colours = (0, 1, 2) if self.bands >= 3 else (0,)
        self.identity = f"{path.stat().st_size} {path.stat().st_mtime_ns}"
        self.windows, self.unreadable = [], []

    def read(self, window):
        x0, y0, x1, y1 = window
        self.windows.append(window)
        if not hasattr(self._local, "raster"):
            self._local.raster = rasterio.open(self.name)
        where = rasterio.windows.Window(x0, y0, x1 - x0, y1 - y0)
        valid = (self._local.raster.read_masks(self._bands, window=where) > 0).all(0)
        return self._local.raster.read(self._bands, window=where), valid


def write_scene(path, values, *, crs=CRS, transform=TRANSFORM, nodata=None, **profile):
    """`values` `(C, H, W)` as a GeoTIFF; gives it as a scene."""
    bands, height, width = values.shape
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=values.dtype, crs=crs,
        transform=transform, nodata=nodata, **(tiles | profile),
    ) as raster:  # fmt: skip
        raster.write(values)
    return FileScene(path)


def patchy(bands, height, width, dtype=np.uint8, seed=0, top=200):
    """Values from 1 to `top` in patches of some pixels, and noise."""
    generator = np.random.default_rng(seed)
    rough = generator.integers(1, top, (bands, height // 16 + 2, width // 16 + 2))
    fine = np.kron(rough, np.ones((16, 16), np.int64))[:, 5 : 5 + height, 3 : 3 + width]
    return np.clip(fine + generator.integers(-9, 10, fine.shape), 1, top).astype(dtype)


class Looking(nn.Module):
    """Probabilities of each pixel from its neighbours up to `radius` away, by one convolution."""

    def __init__(self, bands, classes, radius=3, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.look = nn.Conv2d(bands, classes, 2 * radius + 1, padding=radius)
        with torch.no_grad():
            self.look.weight.copy_(torch.randn(self.look.weight.shape, generator=generator) / 20)
            self.look.bias.copy_(torch.randn(classes, generator=generator))

    @torch.inference_mode()
    def forward(self, images):
        return self.look((images - 100) / 50).softmax(1)


class Exact(nn.Module):
    """Scores that are whole numbers from 0 to 63, of each pixel and its eight neighbours: sums of them are exact."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    @torch.inference_mode()
    def forward(self, images):
        around = nn.functional.avg_pool2d(nn.functional.pad(images, (1, 1, 1, 1)), 3, 1, divisor_override=1).sum(1)
        return torch.stack([(around * (k + 1) + 7 * k) % 64 for k in range(self.classes)], 1)


def whole(predict, scene):
    """What `predict` says of the scene at once, `(K, H, W)`."""
    values, _ = scene.read((0, 0, scene.width, scene.height))
    return predict(torch.from_numpy(values.astype(np.float32))[None])[0]
