r"""What pre-training is worth for a classifier: UC Merced from CMID's backbone, from random weights, and a linear head.

    python benchmarks/finetuning.py --backbone BACKBONE.safetensors --labelled UCMerced_LandUse \
        --train-list split_80_20_train.txt --test-list split_80_20_test.txt --runs runs/finetuning --labels 5,10,0

Recipe `finetune-small` as it is (50 epochs, last epoch, all test images), ResNet-18 at the backbone's own size; the
linear head is trained on the frozen backbone with the rate 1e-2. `--labels` are images of each class to train on, drawn
by the seed, 0 for all. Runs that are finished are kept, so interrupt it whenever you like. Results, with a Student
interval over the seeds, go to `results/finetuning.json`.
"""

import argparse
import json
from pathlib import Path

import torch
from machine import processor

import cmid
from cmid.evaluation.seeds import summarise_seeds

RESULTS = Path(__file__).parent / "results" / "finetuning.json"
WAYS = {"cmid": {}, "random": {}, "linear": {"frozen": True, "optimizer.lr": 1e-2}}


def accuracy(arguments, way, labels, seed):
    """Overall accuracy in percent of one run; trains it where there is none."""
    out = Path(arguments.runs) / f"{way}_{labels or 'all'}_s{seed}"
    if not (out / "scores.json").is_file():
        random = {"backbone": "resnet18", "size": arguments.size} if way == "random" else {}
        begun = (out / "checkpoints" / "last.ckpt").is_file()
        cmid.finetune(
            "classification", "random" if way == "random" else arguments.backbone, arguments.labelled,
            recipe="finetune-small", out=str(out), per_class=labels, seed=seed, train_list=arguments.train_list,
            test_list=arguments.test_list, report=False, resume=begun, **random, **WAYS[way], **{"train.workers": 0},
        )  # fmt: skip
    return 100 * json.loads((out / "scores.json").read_text())["overall_accuracy"]


def main():
    """All ways at each number of labels, the fewest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("backbone", "labelled", "train-list", "test-list", "runs"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--labels", default="5,10,0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    arguments = parser.parse_args()
    for labels in map(int, arguments.labels.split(",")):
        for way in arguments.ways.split(","):
            found = [accuracy(arguments, way, labels, seed) for seed in range(arguments.seeds)]
            # read again: other ways may be measured beside this one
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            results[f"{way}, {labels or 'all'} labels a class"] = {
                "accuracy": found, **summarise_seeds(found).to_plain(), "cpu": processor(), "torch": torch.__version__,
            }  # fmt: skip
            RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
            print(way, labels, found, flush=True)


if __name__ == "__main__":
    main()
