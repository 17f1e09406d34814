r"""What pre-training is worth for a classifier: UC Merced from CMID's backbone, from random weights, and a linear head.

    python benchmarks/finetuning.py --backbone BACKBONE.safetensors --labelled UCMerced_LandUse \
        --train-list split_80_20_train.txt --test-list split_80_20_test.txt --runs runs/finetuning --labels 5,10,0

Recipe `finetune-small` (50 epochs, last epoch, all test images), ResNet-18 at the backbone's own size; the linear head
is trained on the frozen backbone with the rate 1e-2. `--labels` are images of each class to train on, drawn by the
seed, 0 for all. Runs that are finished are kept, so interrupt it whenever you like. Results, with a Student interval
over the seeds, go to `results/finetuning.json`.

`--rate` sets another rate than the recipe's 1e-3. `--choose 1e-3,3e-4` compares rates without the test list: every
fifth image of each class of the training list is held out, the rest trained on, seed 0.
"""

import argparse
import itertools
import json
from pathlib import Path

import torch
from machine import processor

import cmid
from cmid.evaluation.seeds import summarise_seeds

RESULTS = Path(__file__).parent / "results" / "finetuning.json"
WAYS = {"cmid": {}, "random": {}, "linear": {"frozen": True, "optimizer.lr": 1e-2}}


def accuracy(arguments, way, labels, seed, rate=None):
    """Overall accuracy in percent of one run; trains it where there is none."""
    settings = dict(WAYS[way])
    if rate is not None:
        settings["optimizer.lr"] = rate
    out = Path(arguments.runs) / f"{way}_{labels or 'all'}_s{seed}{'' if rate is None else f'_lr{rate:g}'}"
    if not (out / "scores.json").is_file():
        random = {"backbone": "resnet18", "size": arguments.size} if way == "random" else {}
        begun = (out / "checkpoints" / "last.ckpt").is_file()
        cmid.finetune(
            "classification", "random" if way == "random" else arguments.backbone, arguments.labelled,
            recipe="finetune-small", out=str(out), per_class=labels, seed=seed, train_list=arguments.train_list,
            test_list=arguments.test_list, report=False, resume=begun, **random, **settings, **{"train.workers": 0},
        )  # fmt: skip
    return 100 * json.loads((out / "scores.json").read_text())["overall_accuracy"]


def hold_out(arguments):
    """Puts lists of four fifths and one fifth of the training list's images, class by class, in place of the two."""
    classes = {}
    for line in sorted(Path(arguments.train_list).read_text().split()):
        classes.setdefault(Path(line).parent, []).append(line)
    folder = Path(arguments.runs)
    folder.mkdir(parents=True, exist_ok=True)
    for name, keep in (("train", lambda i: i % 5 != 4), ("test", lambda i: i % 5 == 4)):
        lines = [line for images in classes.values() for i, line in enumerate(images) if keep(i)]
        path = folder / f"chosen_on_{name}.txt"
        path.write_text("\n".join(lines) + "\n")
        setattr(arguments, f"{name}_list", str(path))


def write(title, found):
    """Into the results, which are read again: other ways may be measured beside this one."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[title] = {**found, "cpu": processor(), "torch": torch.__version__}
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


def main():
    """All ways at each number of labels, the fewest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("backbone", "labelled", "train-list", "test-list", "runs"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--labels", default="5,10,0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rate", type=float)
    parser.add_argument("--choose", default="", help="rates to compare on a part of the training list")
    arguments = parser.parse_args()
    ways, labels = arguments.ways.split(","), [int(number) for number in arguments.labels.split(",")]
    if arguments.choose:
        hold_out(arguments)
        for number, way, rate in itertools.product(labels, ways, map(float, arguments.choose.split(","))):
            found = accuracy(arguments, way, number, 0, rate)
            write(f"choosing: {way}, {number or 'all'} labels a class, rate {rate:g}", {"accuracy": [found]})
            print(way, number, rate, found, flush=True)
        return
    for number, way in itertools.product(labels, ways):
        found = [accuracy(arguments, way, number, seed, arguments.rate) for seed in range(arguments.seeds)]
        rate = "" if arguments.rate is None else f", rate {arguments.rate:g}"
        title = f"{way}, {number or 'all'} labels a class{rate}"
        write(title, {"accuracy": found, **summarise_seeds(found).to_plain()})
        print(way, number, found, flush=True)


if __name__ == "__main__":
    main()
