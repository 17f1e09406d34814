"""What a step of each method costs beside the backbone work in it, and beside lightly's own modules for the method.

Bare work, and physical limit: the very backbone passes of the step, recorded once and run again alone, those of the
student forwards and backwards, those of a teacher forwards. The step takes the optimiser of the published recipe.
lightly: the same backbone and optimiser with lightly's heads, loss, memory bank and momentum update, written as in its
documentation. Precision, memory format, images and process are the same; the sides take turns, in an order that moves
on. Colours and loading are no part of either. Ratios are the median of those of each turn, and, as neighbours on the
machine only ever slow a side down, that of each side's fastest turn.

    python benchmarks/method_step.py --method byol --batch 64
    python benchmarks/method_step.py --method all --backbone resnet18 --size 64 --batch 32
    python benchmarks/method_step.py --method mae,simmim --backbone vit_small_patch16_224

`mae` takes a plain ViT, and lightly has SimMIM for plain ViTs alone.
"""

import argparse
import copy
import json
import statistics
from pathlib import Path

import torch
from lightly.loss import BarlowTwinsLoss, NegativeCosineSimilarity, NTXentLoss, SwaVLoss
from lightly.models import utils
from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM, heads
from machine import processor, seconds
from timm import create_model

from cmid.commands.learners import METHODS, build_learner, method_of
from cmid.commands.settings import resolve
from cmid.config import PretrainConfig, SwAVConfig, ViewConfig
from cmid.contracts import Progress, View, Views
from cmid.train.hardware import cpu_multiplies_bf16, resolve_precision
from cmid.train.memory import keep_freed_memory
from cmid.train.optimisers import build_optimiser

RECIPES = {"cmid": "cmid-millionaid-resnet50", "mae": "mae-vit-b", "simmim": "simmim-swin-b"}
RESULTS = Path(__file__).parent / "results" / "method_step.json"


class Lightly:
    """A method of lightly's modules on a backbone that gives `(B, C)` vectors."""

    def __init__(self, method, backbone):
        self.method, self.backbone = method, backbone
        width = backbone.channels[-1]
        self.teacher = None
        if method == "byol":
            self.head, self.predictor = heads.BYOLProjectionHead(width), heads.BYOLPredictionHead()
            self.loss = NegativeCosineSimilarity()
        elif method == "moco_v2":
            self.head = heads.MoCoProjectionHead(width)
            self.loss = NTXentLoss(0.2, memory_bank_size=(65536, 128))
        elif method == "barlow_twins":
            self.head, self.loss = heads.BarlowTwinsProjectionHead(width), BarlowTwinsLoss(0.0051)
        else:
            self.head, self.prototypes = heads.SwaVProjectionHead(width), heads.SwaVPrototypes(128, 3000)
            self.loss = SwaVLoss()
        if method in ("byol", "moco_v2"):
            self.teacher, self.teacher_head = copy.deepcopy(backbone), copy.deepcopy(self.head)
            for part in (self.teacher, self.teacher_head):
                part.requires_grad_(False)
        modules = [backbone, self.head, getattr(self, "predictor", None), getattr(self, "prototypes", None)]
        self.trained = torch.nn.ModuleList([m for m in modules if m is not None]).train()

    def embed(self, images, backbone=None, head=None):
        return (head or self.head)((backbone or self.backbone)(images).last.mean((2, 3)))

    def __call__(self, images):
        if self.teacher is not None:
            utils.update_momentum(self.backbone, self.teacher, 0.996)
            utils.update_momentum(self.head, self.teacher_head, 0.996)
        if self.method == "byol":
            with torch.no_grad():
                targets = [self.embed(x, self.teacher, self.teacher_head) for x in images]
            said = [self.predictor(self.embed(x)) for x in images]
            return 0.5 * (self.loss(said[0], targets[1]) + self.loss(said[1], targets[0]))
        if self.method == "moco_v2":
            with torch.no_grad():
                key = self.embed(images[1], self.teacher, self.teacher_head)
            return self.loss(self.embed(images[0]), key)
        if self.method == "barlow_twins":
            return self.loss(*(self.embed(x) for x in images))
        self.prototypes.normalize()
        codes = [self.prototypes(torch.nn.functional.normalize(self.embed(x), dim=1)) for x in images]
        return self.loss(codes, [])


class LightlyMasked:
    """MAE or SimMIM of lightly's modules on timm's plain ViT, with the settings `config` of ours."""

    teacher = None

    def __init__(self, method, config, name, size):
        self.vit = MaskedVisionTransformerTIMM(create_model(name, num_classes=0, img_size=size))
        patches, width = self.vit.vit.patch_embed.num_patches, self.vit.vit.embed_dim
        self.patch, self.tokens = self.vit.vit.patch_embed.patch_size[0], patches + 1
        self.mask_ratio, self.decoder = config.mask_ratio, torch.nn.Linear(width, 3 * self.patch**2)
        self.mae = method == "mae"
        if self.mae:
            self.decoder = MAEDecoderTIMM(
                patches, self.patch, embed_dim=width, decoder_embed_dim=config.decoder_width,
                decoder_depth=config.decoder_depth, decoder_num_heads=config.decoder_heads,
            )  # fmt: skip
        self.loss = torch.nn.MSELoss() if self.mae else torch.nn.L1Loss()
        self.trained = torch.nn.ModuleList([self.vit, self.decoder]).train()

    def __call__(self, images):
        images = images[0]
        size = (len(images), self.tokens)
        keep, hidden = utils.random_token_mask(size, self.mask_ratio, device=images.device)
        target = utils.get_at_index(utils.patchify(images, self.patch), hidden - 1)
        if not self.mae:
            features = self.vit.encode(images, idx_mask=hidden)
            return self.loss(self.decoder(utils.get_at_index(features, hidden)), target)
        seen = self.decoder.embed(self.vit.encode(images, idx_keep=keep))
        every = utils.repeat_token(self.decoder.mask_token, size)
        every = self.decoder.decode(utils.set_at_index(every, keep, seen.type_as(every)))
        mean, deviation = target.mean(-1, keepdim=True), (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return self.loss(self.decoder.predict(utils.get_at_index(every, hidden)), (target - mean) / deviation)


class Sides:
    """A method, its bare work, and lightly's where it has the method."""

    def __init__(self, method, arguments):
        self.precision = resolve_precision(arguments.precision, torch.device("cpu"))
        settings = PretrainConfig(
            method=method, backbone=arguments.backbone, batch_size=arguments.batch,
            views=ViewConfig(size=arguments.size), swav=SwAVConfig(freeze_epochs=0),
        )  # fmt: skip
        if method == "supervised":
            settings.supervised.classes = 45
        for each in (settings.cmid, settings.simmim):
            each.mask_cell_px = min(each.mask_cell_px, arguments.size // 2)
        self.learner = build_learner(settings).train()
        self.format = torch.channels_last if self.learner.backbone.norm == "batch" else torch.contiguous_format
        self.learner.to(memory_format=self.format)
        config = resolve(PretrainConfig, {}, recipe=RECIPES.get(method, f"{method}-resnet50")).optimizer
        self.optimiser, self.optimiser_name = build_optimiser(self.learner, config, 1e-4), config.name
        generator, crops, count = torch.Generator().manual_seed(0), [], arguments.batch
        for _ in range(method_of(settings).crops):
            images = torch.randn(count, 3, arguments.size, arguments.size, generator=generator)
            boxes = torch.rand(count, 2, generator=generator).repeat(1, 2) * 60 + torch.tensor([0.0, 0.0, 180.0, 180.0])
            flipped = torch.rand(count, generator=generator) < 0.5
            crops.append(View(images.contiguous(memory_format=self.format), boxes, flipped))
        self.views = Views(tuple(crops), torch.arange(count), labels=torch.arange(count) % 45)
        self.count, self.passes = 0, []
        self.lightly = None
        if method in ("byol", "moco_v2", "barlow_twins", "swav"):
            self.lightly = Lightly(method, copy.deepcopy(self.learner.backbone))
        elif method in ("mae", "simmim") and arguments.backbone.startswith("vit"):
            self.lightly = LightlyMasked(method, getattr(settings, method), arguments.backbone, arguments.size)
        if self.lightly:
            for part in (self.lightly.trained, self.lightly.teacher):
                if part is not None:
                    part.to(memory_format=self.format)
            self.their_optimiser = build_optimiser(self.lightly.trained, config, 1e-4)
        self.record()

    def autocast(self):
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def method(self):
        self.learner.before_step(Progress(self.count, 1000))
        self.optimiser.zero_grad(set_to_none=True)
        for part in range(self.learner.parts):
            with self.autocast():
                loss = sum(self.learner(self.views, part if self.learner.parts > 1 else None).values())
            loss.backward()
        self.optimiser.step()
        self.count += 1
        self.learner.after_step(Progress(self.count, 1000))

    def record(self):
        """One step, in which every pass through a backbone is noted."""
        student, teacher = self.learner.backbone, getattr(self.learner, "teacher_backbone", None)

        def note(run, trained):
            def noted(*given, **named):
                kept = [g.detach() if isinstance(g, torch.Tensor) else g for g in given]
                self.passes.append((run, trained, kept, named))
                return run(*given, **named)

            return noted

        names = [n for n in ("forward", "visible_tokens") if hasattr(student, n)]
        for module, trained in ((student, True), (teacher, False)):
            for name in names if module is not None else ():
                setattr(module, name, note(getattr(module, name), trained))
        self.method()
        for module in (student, teacher):
            for name in names if module is not None else ():
                delattr(module, name)

    def bare(self):
        """Those passes again."""
        self.learner.backbone.zero_grad(set_to_none=True)
        for run, trained, given, named in self.passes:
            with self.autocast(), torch.set_grad_enabled(trained):
                found = run(*given, **named)
            if trained:
                last = found if isinstance(found, torch.Tensor) else found.last
                last.float().mean().backward()

    def lightlys(self):
        self.their_optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            loss = self.lightly([view.images for view in self.views])
        loss.backward()
        self.their_optimiser.step()


def measure(method, arguments):
    """One method's figures."""
    torch.manual_seed(0)
    sides = Sides(method, arguments)
    acts = [sides.method, sides.bare] + ([sides.lightlys] if sides.lightly else [])
    for act in acts:
        act()
    times = []
    for turn in range(arguments.repeats):
        order = [(turn + place) % len(acts) for place in range(len(acts))]  # none always comes after the same other
        found = {side: seconds(acts[side]) for side in order}
        times.append([found[side] for side in range(len(acts))])
    over_bare, fastest = sorted(t[0] / t[1] for t in times), [min(side) for side in zip(*times, strict=True)]
    found = {
        "method": method, "backbone": arguments.backbone, "batch": arguments.batch, "size_px": arguments.size,
        "precision": sides.precision, "optimiser": sides.optimiser_name,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "cpu": processor(), "bf16_units": cpu_multiplies_bf16(), "repeats": arguments.repeats,
        "step_s": statistics.median(t[0] for t in times), "bare_s": statistics.median(t[1] for t in times),
        "over_bare": statistics.median(over_bare), "over_bare_range": [over_bare[0], over_bare[-1]],
        "over_bare_fastest": fastest[0] / fastest[1],
    }  # fmt: skip
    if sides.lightly:
        speed = sorted(t[2] / t[0] for t in times)
        found |= {"speed_over_lightly": statistics.median(speed), "speed_over_lightly_range": [speed[0], speed[-1]]}
        found["speed_over_lightly_fastest"] = fastest[2] / fastest[0]
    return found


def main():
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="all", help=f"all, or some of {','.join(METHODS)}")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto", choices=["auto", "32", "bf16"])
    arguments = parser.parse_args()
    keep_freed_memory()  # as the trainer does; all sides gain
    every = [m for m in METHODS if m != "mae"] if arguments.method == "all" else arguments.method.split(",")
    for method in every:
        found = measure(method, arguments)
        print(json.dumps(found, indent=1), flush=True)
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept[f"{method}, {arguments.backbone}, {arguments.size} px, batch {arguments.batch}, {found['precision']}"] = (
            found
        )
        RESULTS.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
