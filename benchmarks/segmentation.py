r"""What pre-training is worth for a segmenter: Dubai's land cover from CMID's backbone and from random weights.

    python benchmarks/segmentation.py --backbone BACKBONE.safetensors --images Dubai_MBRSC --runs runs/segmentation

Each of the data set's 72 images is cut into patches of 256 px (the last of a row moved in to the edge), and tiles 7 and
8 are held out whole. Recipe `segment-small` with 12 epochs (`--epochs`; last epoch, all test patches), at 100 % and at
10 % of the training patches, the latter drawn by the seed and passed over so often that both see as many crops. Runs
that are finished are kept, so interrupt it whenever you like. mIoU of all test pixels together, with a Student interval
over the seeds and each run's bootstrap interval over the patches, goes to `results/segmentation.json`.

The colours are those that the data set's page gives; pixels "unlabelled" or black do not count.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from machine import processor
from PIL import Image

import cmid
from cmid.evaluation.seeds import summarise_seeds

RESULTS = Path(__file__).parent / "results" / "segmentation.json"
PALETTE = [
    ("building", (60, 16, 152), False), ("land", (132, 41, 246), False), ("road", (110, 193, 228), False),
    ("vegetation", (254, 221, 58), False), ("water", (226, 169, 41), False), ("unlabelled", (155, 155, 155), True),
    ("black", (0, 0, 0), True),
]  # fmt: skip
SIDE = 256
TEST = ("Tile 7", "Tile 8")


def starts(length):
    """First pixels of the patches along one side."""
    return sorted({*range(0, length - SIDE + 1, SIDE), length - SIDE})


def cut(images, out):
    """Patches of every image and mask below `out`, once."""
    if (out / "palette.json").is_file():
        return
    for path in sorted(images.glob("Tile */images/*.jpg")):
        mask = path.parent.parent / "masks" / f"{path.stem}.png"
        image, labels = (np.asarray(Image.open(each).convert("RGB")) for each in (path, mask))
        for kind in ("images", "masks"):
            (out / path.parts[-3] / kind).mkdir(parents=True, exist_ok=True)
        for y in starts(image.shape[0]):
            for x in starts(image.shape[1]):
                name = f"{path.stem}_{x}_{y}_{x + SIDE}_{y + SIDE}.png"
                for kind, pixels in (("images", image), ("masks", labels)):
                    Image.fromarray(pixels[y : y + SIDE, x : x + SIDE]).save(out / path.parts[-3] / kind / name)
    entries = [{"name": n, "colour": list(c), "ignore": i} for n, c, i in PALETTE]
    (out / "palette.json").write_text(json.dumps(entries))


def scores(arguments, way, share, seed, patches):
    """scores.json of one run; trains it where there is none."""
    out = Path(arguments.runs) / f"{way}_{round(100 * share)}pc_s{seed}"
    if not (out / "scores.json").is_file():
        random = {"backbone": "resnet18"} if way == "random" else {}
        cmid.finetune(
            "segmentation", "random" if way == "random" else arguments.backbone, str(patches), recipe="segment-small",
            out=str(out), seed=seed, train_share=share, epochs=round(arguments.epochs / share), report=arguments.report,
            resume=(out / "checkpoints" / "last.ckpt").is_file(), labels={"test_groups": TEST},
            train={"workers": 0}, **random,
        )  # fmt: skip
    return json.loads((out / "scores.json").read_text())


def main():
    """All ways at both shares, the smaller first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("backbone", "images", "runs"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--shares", default="0.1,1")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default="cmid,random")
    parser.add_argument("--epochs", type=int, default=12, help="at 100 %% of the training patches")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    patches = Path(arguments.runs) / "patches"
    cut(Path(arguments.images), patches)
    for share in map(float, arguments.shares.split(",")):
        for seed in map(int, arguments.seeds.split(",")):
            for way in arguments.ways.split(","):
                found = scores(arguments, way, share, seed, patches)
                # read again: other ways may be measured beside this one
                results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
                entry = results.setdefault(f"{way}, {round(100 * share)} % of the training patches", {"runs": {}})
                entry["runs"][str(seed)] = {
                    "mean_iou": found["mean_iou"], "interval": found["interval"], "mean_f1": found["mean_f1"],
                    "overall_accuracy": found["overall_accuracy"],
                    "iou": {each["name"]: each["iou"] for each in found["protocols"][0]["per_class"]},
                }  # fmt: skip
                each = [100 * run["mean_iou"] for run in entry["runs"].values()]
                entry |= {"mean_iou": summarise_seeds(each).to_plain(), "protocol": found["protocol"],
                          "cpu": processor(), "torch": torch.__version__}  # fmt: skip
                RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
                print(way, share, seed, found["mean_iou"], found["interval"], flush=True)


if __name__ == "__main__":
    main()
