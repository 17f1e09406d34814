"""Tiny copies of BigEarthNet on disk, as torchgeo expects them."""

import json

import numpy as np
import rasterio

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
LABELS = ("Airports", "Coniferous forest", "Sea and ocean")
LABELS_V2 = ("Industrial or commercial units", "Coniferous forest", "Marine waters")


def write_bands(folder, name, bands, rng):
    """One GeoTIFF a band: 120 px at 10 m (radar, too), 60 at 20 m, 20 at 60 m."""
    folder.mkdir(parents=True)
    for band in bands:
        side = 20 if band in ("B01", "B09") else 120 if band in ("B02", "B03", "B04", "B08", "VV", "VH") else 60
        radar = band in ("VV", "VH")
        pixels = rng.normal(-14, 3, (1, side, side)) if radar else rng.integers(200, 4000, (1, side, side))
        kind = "float32" if radar else "uint16"
        with rasterio.open(
            folder / f"{name}_{band}.tif", "w", driver="GTiff", width=side, height=side, count=1, dtype=kind,
            crs="EPSG:32633", transform=rasterio.Affine(1200 / side, 0, 5e5, 0, -1200 / side, 5e6),
        ) as file:  # fmt: skip
            file.write(pixels.astype(kind))


def classes_of(i, labels):
    """Of image i: every mixture of the labels in turn."""
    return [label for k, label in enumerate(labels) if (i + 1) >> k & 1]


def big_earth_net(root, of_each=(8, 2, 4), *, radar=False):
    """The first version: lists of pairs, and a file of labels beside the bands; Sentinel-1 where `radar`."""
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "val", "test"), of_each, strict=True):
        pairs = []
        for i in range(count):
            name, other = (f"S{k}A_MSIL2A_20170613T101031_{split}_{i}" for k in (2, 1))
            sides = [("BigEarthNet-v1.0", name, BANDS)]
            sides += [("BigEarthNet-S1-v1.0", other, ("VV", "VH"))] if radar else []
            for folder, own, bands in sides:
                write_bands(root / folder / own, own, bands, rng)
                labels = json.dumps({"labels": classes_of(i, LABELS)})
                (root / folder / own / f"{own}_labels_metadata.json").write_text(labels)
            pairs.append(f"{name},{other}")
        (root / f"bigearthnet-{split}.csv").write_text("\n".join(pairs) + "\n")
    return root


def big_earth_net_v2(root, of_each=(4, 2, 2)):
    """The second version, Sentinel-2; returns the rows of its metadata.parquet, which is left empty."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in zip(("train", "validation", "test"), of_each, strict=True):
        for i in range(count):
            tile = f"S2A_MSIL2A_20170613T101031_N9999_R022_{split}"
            name = f"{tile}_{i:02d}_00"
            write_bands(root / "BigEarthNet-S2" / tile / name, name, BANDS, rng)
            write_bands(root / "Reference_Maps" / tile / name, name, (), rng)
            with rasterio.open(
                root / "Reference_Maps" / tile / name / f"{name}_reference_map.tif", "w", driver="GTiff", width=120,
                height=120, count=1, dtype="uint16", crs="EPSG:32633",
                transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
            ) as file:  # fmt: skip
                file.write(np.full((1, 120, 120), 312, np.uint16))
            rows.append({"patch_id": name, "s1_name": "", "split": split, "labels": classes_of(i, LABELS_V2)})
    (root / "BigEarthNet-S1").mkdir()
    (root / "metadata.parquet").touch()
    return rows
