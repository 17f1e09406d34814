"""How fast scenes are drawn: seconds of one core per scene of 256 px, and what they are spent on.

    OMP_NUM_THREADS=1 python benchmarks/generate.py

Every scene is timed by the processor time of this process, the best of several repeats, after the noise tiles have
been made; their cost at the start of a process is given apart. The speed of a shared machine comes and goes, so a
yardstick is timed beside every scene: 300 small polygons drawn with Pillow from a Python loop. Compare the ratio to
the yardstick from run to run rather than the milliseconds; `at_full_speed` is the mean scaled to the yardstick's
best time of the run. Results go to `results/generate.json`.
"""

import argparse
import itertools
import json
import os
import platform
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL
from machine import processor
from PIL import Image, ImageDraw

AIM_MS = 5.0


def best_ms(work, repeats, clock=time.process_time):
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return 1e3 * min(times)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", type=int, default=256)
    options.add_argument("--scenes", type=int, default=10, help="of each class")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--folder", help="where to write, such as a RAM disk: a new file costs what the disk asks")
    given = options.parse_args()

    start = time.process_time()
    from cmid.data.generated import SCENE_CLASSES, class_of, draw_scene, make_folders, write_scene
    from cmid.data.generated.files import PALETTE, dota_text, write_map, write_picture
    from cmid.data.generated.texture import CROWN_PX, crowns, sheets

    imported = time.process_time()
    sheets()
    for which in range(len(CROWN_PX)):
        crowns(which)
    tiles = time.process_time()

    brush, yardsticks = ImageDraw.Draw(Image.new("RGBA", (512, 512))), []

    def yardstick():
        for k in range(300):
            brush.polygon([k, 100.5, k + 9.0, 104.0, k + 7.5, 112.0, k - 2.0, 108.0], fill=(k % 256, 9, 9, 9))

    numbers = itertools.count()  # new files, as a real run writes them: to empty an old one first costs more
    count = given.scenes * len(SCENE_CLASSES)
    sums = {name: dict.fromkeys(("draw", "draw_both_dates", "labelled", "written"), 0.0) for name in SCENE_CLASSES}
    with TemporaryDirectory(dir=given.folder) as folder:
        out = Path(folder)
        make_folders(out)

        def labelled(index):
            """What one picture with its mask and boxes costs on disk, without the second date."""
            scene, stem = draw_scene(0, index, given.size, second_date=False), str(next(numbers))
            write_picture(out / f"{stem}.jpg", Image.fromarray(scene.image))
            write_map(out / f"{stem}.png", scene.mask, PALETTE)
            (out / f"{stem}.txt").write_text(dota_text(scene))

        for index in range(count):
            row = sums[class_of(index)]
            yardsticks.append(best_ms(yardstick, given.repeats))
            row["draw"] += best_ms(lambda i=index: draw_scene(0, i, given.size, second_date=False), given.repeats)
            row["draw_both_dates"] += best_ms(lambda i=index: draw_scene(0, i, given.size), given.repeats)
            row["labelled"] += best_ms(lambda i=index: labelled(i), given.repeats)
            row["written"] += best_ms(lambda i=index: write_scene(out, 0, i, given.size, "jpg"), given.repeats)

    by_class = {name: {k: round(v / given.scenes, 2) for k, v in row.items()} for name, row in sums.items()}
    mean = {k: round(sum(row[k] for row in by_class.values()) / len(by_class), 2) for k in by_class["forest"]}
    usual = sum(yardsticks) / len(yardsticks)
    slowed = min(yardsticks) / usual
    result = {
        "ms_per_scene": mean,
        "per_second_and_core": {k: round(1e3 / v, 1) for k, v in mean.items()},
        "aim_labelled_ms": AIM_MS,
        "labelled_over_aim": round(mean["labelled"] / AIM_MS, 2),
        "yardstick_ms": {"mean": round(usual, 3), "best": round(min(yardsticks), 3)},
        "over_yardstick": {k: round(v / usual, 1) for k, v in mean.items()},
        "at_full_speed": {
            "ms_per_scene": {k: round(v * slowed, 2) for k, v in mean.items()},
            "per_second_and_core": {k: round(1e3 / (v * slowed), 1) for k, v in mean.items()},
        },
        "start_seconds": {"import": round(imported - start, 2), "tiles": round(tiles - imported, 2)},
        "ms_by_class": by_class,
        "size": given.size,
        "scenes": count,
        "repeats": given.repeats,
        "hardware": {"processor": processor(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__},
    }
    text = json.dumps(result, indent=2)
    print(text)
    (Path(__file__).parent / "results" / "generate.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
