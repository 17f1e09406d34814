r"""What CMID learns on real images, on two cores: pre-train on AID (no labels), probe frozen features on UC Merced.

    python benchmarks/learning.py --images AID_150px --labelled UCMerced_LandUse \
        --train-list split_80_20_train.txt --test-list split_80_20_test.txt --runs runs/learning --plan short

Plans: `short` (10 epochs: exact and parity, two seeds, by the settings that recipe cmid-small had then, and by those it
has now), `long` (30 epochs, exact; the last by those of now), `branches` (10 epochs, each branch off once, by those of
then), `random` (no pre-training). Stop it whenever you like: the next call goes on where it stopped, and keeps what is
finished. Student and teacher are both scored. Settings are chosen without the test images: `choose` trains 2 epochs by
each of some settings and classifies each image of the training list by the 5 nearest others, and `refine` goes on from
the two best of those; `factors` trains 4 epochs by 8 combinations of five further ones, and `colder` by lower
temperatures.
Opponents: random weights, and the default SimCLR of a one-command tool (kNN-5 34 %, linear 51 % after 10 epochs,
measured elsewhere).
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

import cmid
from cmid.commands.evaluate import frozen_features
from cmid.commands.settings import resolve
from cmid.config import EvaluateConfig, PretrainConfig, as_plain
from cmid.errors import CmidError
from cmid.train import read_checkpoint

RESULTS = Path(__file__).parent / "results" / "learning.json"
RECIPE = "cmid-small"
CHOICES = ("choose", "refine", "factors", "colder")
"""Plans that the test images are kept from."""
BRANCHES = ("reconstruction", "global", "local")
THEN = {
    "views": {"turn": 0.0, "blur_p": 1.0, "noise_p": 0.6},
    "cmid": {"mask_ratio": 0.6, "temperature": 0.2, "queue_size": 4096},
}
"""What the recipe had before these runs; each is named by how it departs from this."""
WEAKER = {"colour_jitter": [0.1, 0.1, 0.05, 0.025], "grey_p": 0.02}
LESS = {"turn": 1.0, "blur_p": 0.3, "noise_p": 0.2}
NOW = {"views": LESS, "cmid": {"mask_ratio": 0.3, "temperature": 0.1, "queue_size": 1024}}
"""What these runs have changed it to: recipe cmid-small since."""
# two levels of five settings in 8 of the 32 ways to combine them, each level in 4: every run tells about every setting
FACTORS = {
    "crops of 8 to 100 %": ("views", "scale", [0.08, 1.0], (0, 1, 0, 1, 0, 1, 0, 1)),
    "temperature 0.3": ("cmid", "temperature", 0.3, (0, 0, 1, 1, 0, 0, 1, 1)),
    "queue of 1,024": ("cmid", "queue_size", 1024, (0, 0, 0, 0, 1, 1, 1, 1)),
    "local weight 2": ("cmid", "local_weight", 2.0, (0, 1, 1, 0, 1, 0, 0, 1)),  # the three above, multiplied
    "reconstruction weight 0.3": ("cmid", "reconstruction_weight", 0.3, (1, 0, 0, 1, 1, 0, 0, 1)),  # the first two
}


def factors(run):
    """Settings of one of the 8 runs."""
    settings = {"views": dict(LESS), "cmid": {"mask_ratio": 0.3}}
    for section, name, value, levels in FACTORS.values():
        if levels[run]:
            settings[section][name] = value
    return settings


PLANS = {
    "random": [("random", 0, 0, {})],
    "short": [
        *[(f"{mode}", 10, seed, {"cmid": {"mode": mode}}) for seed in (0, 1) for mode in ("exact", "parity")],
        *[("the third with temperature 0.1, queue of 1,024", 10, seed, NOW) for seed in (0, 1)],
    ],
    "long": [
        ("exact", 30, 0, {"cmid": {"mode": "exact"}}),
        ("turned crops and mask ratio 0.3", 30, 0, {"views": {"turn": 1.0}, "cmid": {"mask_ratio": 0.3}}),
        (
            "turned crops, mask ratio 0.3, less blur and noise",
            30,
            0,
            {"views": LESS, "cmid": {"mask_ratio": 0.3}},
        ),
        (
            "the same with batch 16, momentum 0.995, weight decay 0.05",
            30,
            0,
            {
                "batch_size": 16,
                "views": LESS,
                "cmid": {"mask_ratio": 0.3, "momentum": 0.995},
                "optimizer": {"weight_decay": 0.05},
            },
        ),
        *[("the third with temperature 0.1, queue of 1,024", 30, seed, NOW) for seed in (0, 1)],
    ],
    "choose": [
        ("recipe", 2, 0, {}),
        ("mask ratio 0.3", 2, 0, {"cmid": {"mask_ratio": 0.3}}),
        ("crops of 30 to 100 %", 2, 0, {"views": {"scale": [0.3, 1.0]}}),
        ("momentum 0.996", 2, 0, {"cmid": {"momentum": 0.996}}),
        ("rate 2e-3", 2, 0, {"optimizer": {"lr": 2e-3}}),
        ("turned crops", 2, 0, {"views": {"turn": 1.0}}),
        ("crops of 8 to 100 %", 2, 0, {"views": {"scale": [0.08, 1.0]}}),
    ],
    "refine": [
        (name, 2, 0, {"views": {"turn": 1.0, **views}, "cmid": {"mask_ratio": 0.3, **own}, **more})
        for name, views, own, more in (
            ("both", {}, {}, {}),
            ("both, crops of 8 to 100 %", {"scale": [0.08, 1.0]}, {}, {}),
            ("both, mask ratio 0.15", {}, {"mask_ratio": 0.15}, {}),
            ("both, colours halved again", WEAKER, {}, {}),
            ("three, blur 0.3 and noise 0.2", {**WEAKER, "blur_p": 0.3, "noise_p": 0.2}, {}, {}),
            ("three, rate 2e-3", WEAKER, {}, {"optimizer": {"lr": 2e-3}}),
        )
    ],
    "factors": [(f"factors {run + 1} of 8", 4, 0, factors(run)) for run in range(8)],
    "colder": [
        (
            f"temperature {temperature}, queue of 1,024",
            4,
            0,
            {**NOW, "cmid": {**NOW["cmid"], "temperature": temperature}},
        )
        for temperature in (0.1, 0.15)
    ],
    "branches": [(f"without {name}", 10, 0, {"cmid": {f"{name}_weight": 0.0}}) for name in BRANCHES],
}


def train(arguments, name, epochs, seed, settings):
    """The finished run's directory; trains, or goes on training, where there is none.

    A run of other settings than today's recipe is refused, never taken for this one.
    """
    out = Path(arguments.runs) / f"{name.replace(' ', '_')}_{epochs}ep_s{seed}"
    wanted = {"epochs": epochs, "seed": seed, **settings}
    wanted["views"] = {**THEN["views"], **settings.get("views", {})}
    wanted["cmid"] = {**THEN["cmid"], **settings.get("cmid", {}), "local_temperature_epochs": epochs}
    try:
        found = read_checkpoint(out)
    except CmidError:
        found = None
    if found is not None and found.progress.epoch >= epochs:
        today = as_plain(resolve(PretrainConfig, wanted, recipe=RECIPE))
        today["views"]["squash"] = found.settings["views"]["squash"]  # follows from the mode
        differing = [
            k for k in ("cmid", "views", "optimizer", "backbone", "batch_size") if today[k] != found.settings[k]
        ]
        if differing:
            raise SystemExit(
                f"{out} was trained with other settings ({', '.join(differing)}): remove it, or name --runs"
            )
        return out
    cmid.pretrain(
        arguments.images, recipe=RECIPE, out=str(out), report=False, resume=found is not None,
        train={"workers": 1}, **wanted,
    )  # fmt: skip
    return out


def probe(arguments, weights, which, **more):
    """Accuracy of kNN and of a linear probe on the test list, with intervals."""
    found = {}
    for kind in ("knn", "linear"):
        result = cmid.evaluate(
            kind, weights=str(weights), data=arguments.labelled, train_list=arguments.train_list,
            test_list=arguments.test_list, size=96, **more,
        )  # fmt: skip
        found[kind] = [asdict(score) for score in result.scores]
    return {"which": which, **found}


def others_nearest(arguments, weights, which):
    """Accuracy in percent on the training list, each image by the 5 nearest others; the test images go unused."""
    asked = EvaluateConfig(
        weights=str(weights), data=arguments.labelled, train_list=arguments.train_list, test_list=arguments.test_list,
        size=96,
    )  # fmt: skip
    features, labels = frozen_features(asked, Console(stderr=True)).train
    likeness = torch.nn.functional.normalize(features, dim=1)
    likeness = (likeness @ likeness.T).fill_diagonal_(-1)
    votes = torch.nn.functional.one_hot(labels[likeness.topk(5).indices]).sum(1)
    return {
        "which": which,
        "leave-one-out kNN-5 on the training list": 100 * float((votes.argmax(1) == labels).float().mean()),
    }


def main():
    """One plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("images", "labelled", "train-list", "test-list", "runs"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--plan", choices=PLANS, default="short")
    parser.add_argument("--only", default="", help="of the plan, the runs whose title holds these words")
    arguments = parser.parse_args()
    for name, epochs, seed, settings in PLANS[arguments.plan]:
        title = f"{name}, {epochs} epochs, seed {seed}"
        if arguments.only not in title:
            continue
        if name == "random":
            about, scores = {}, [probe(arguments, "random", "random", backbone="resnet18", seed=seed)]
        else:
            run, scores = train(arguments, name, epochs, seed, settings), []
            trained = read_checkpoint(run)
            settings_then = trained.settings | {key: Path(trained.settings[key]).name for key in ("data", "out")}
            about = {"machine": trained.state.get("machine"), "settings": settings_then}
            for which in ("student", "teacher"):
                file = run / f"{which}.safetensors"
                if not file.exists():
                    cmid.extract(str(run), out=str(file), which=which)
                whole = {} if arguments.plan in CHOICES else probe(arguments, file, which)
                chosen = others_nearest(arguments, file, which) if arguments.plan in (*CHOICES, "long") else {}
                scores.append(whole | chosen)
        RESULTS.parent.mkdir(exist_ok=True)
        # read again: other runs of this plan may have been written beside this one
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[title] = {"recipe": RECIPE, "scores": scores, "torch": torch.__version__, **about}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
