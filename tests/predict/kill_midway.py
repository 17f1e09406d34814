"""Maps a scene slowly, in a process of its own that a test kills: says where it is after each batch."""

import sys
import time
from pathlib import Path

from cmid.predict.raster_output import Classes
from cmid.predict.scene_to_map import Outputs, scene_to_map
from cmid.predict.windows import Tiling
from tests.predict.small_scenes import FileScene, Looking

TILING = Tiling(window=64, overlap=32, margin=8, batch=4)
CLASSES = Classes(("a", "b", "c"))


def outputs(folder):
    return Outputs(folder / "map.tif", folder / "p.tif", folder / "p.gpkg", folder / "q.png")


def tell(done, total):
    print(done, total, flush=True)
    time.sleep(0.02)


if __name__ == "__main__":
    scene = FileScene(Path(sys.argv[1]))
    scene_to_map(
        scene, Looking(2, 3), CLASSES, outputs(Path(sys.argv[2])), tiling=TILING,
        scores_bytes=int(sys.argv[3]), tick=tell,
    )  # fmt: skip
