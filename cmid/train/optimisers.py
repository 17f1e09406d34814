"""Optimisers by name, their parameter groups, and the learning rate scaled to the batch."""

from collections.abc import Sequence

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from cmid.config import OptimizerConfig
from cmid.contracts import Backbone
from cmid.errors import UsageError
from cmid.train.sharding import is_divided


def parameter_groups(module: nn.Module, weight_decay: float, undecayed: Sequence[str] = ()) -> list[dict]:
    """What is trained, in two groups: decayed, and not (biases, tensors of at most one dimension, `undecayed`).

    Frozen parameters are in neither, hence no teacher. The mask token and Swin's relative position tables have more
    than one dimension and do decay, as in the published pre-training (reference `optim_groups_*.json`), unless a word
    of `undecayed` is in their names. Each group keeps its `names`, so that what a checkpoint holds can be read.
    """
    decayed: list[tuple[str, nn.Parameter]] = []
    plain: list[tuple[str, nn.Parameter]] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            spared = parameter.ndim <= 1 or name.endswith(".bias") or any(word in name for word in undecayed)
            (plain if spared else decayed).append((name, parameter))
    groups = [(decayed, weight_decay), (plain, 0.0)]
    return [
        {"params": [p for _, p in group], "names": [n for n, _ in group], "weight_decay": decay}
        for group, decay in groups
        if group
    ]


def by_depth(groups: list[dict], module: nn.Module, layer_decay: float) -> list[dict]:
    """`groups` divided by depth in `module.backbone`, each with `lr_scale`, the factor of its learning rate.

    The deepest layer of the backbone has `layer_decay`, the one below it `layer_decay ** 2` and so on; what is not of
    the backbone has 1. Source: BEiT (arXiv 2106.08254), with timm's division into layers.

    Raises:
        UsageError: a backbone whose layers are not known.
    """
    backbone = getattr(module, "backbone", None)
    depths = backbone.depths() if isinstance(backbone, Backbone) else {}
    if not depths:
        name = getattr(backbone, "name", type(module).__name__)
        raise UsageError(
            f"the layers of {name} are not known, so their rates cannot decay: leave optimizer.layer_decay"
        )
    above = max(depths.values()) + 1
    divided: list[dict] = []
    for group in groups:
        by_layer: dict[int, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in zip(group["names"], group["params"], strict=True):
            by_layer.setdefault(depths.get(name.removeprefix("backbone."), above), []).append((name, parameter))
        for layer in sorted(by_layer):
            named = by_layer[layer]
            own = {"params": [p for _, p in named], "names": [n for n, _ in named]}
            divided.append({**group, **own, "lr_scale": layer_decay ** (above - layer)})
    return divided


def build_optimiser(module: nn.Module, config: OptimizerConfig, lr: float, *, scaled: bool = False) -> Optimizer:
    """The optimiser that `config.name` asks for, over `parameter_groups(module)`, at rate `lr`.

    Adan and LARS are timm's (LARS leaves biases and norms without trust ratio, as its paper does), AdamW and SGD
    torch's; SGD is the plain heavy ball, without Nesterov.

    Args:
        module: what is trained.
        config: name and numbers.
        lr: the rate of groups with scale 1.
        scaled: gradients come scaled, in precision 16. Torch's fused ones take the scale out themselves, in the step,
            and so could not be clipped before it.

    Raises:
        UsageError: an unknown name, too few betas for it, or a backbone whose layers are not known.
    """
    from timm.optim import Adan, Lars

    groups = parameter_groups(module, config.weight_decay, config.undecayed)
    if config.layer_decay != 1.0:
        groups = by_depth(groups, module, config.layer_decay)
    if not groups:
        raise UsageError("There is nothing to train: every parameter of the learner is frozen.")
    needed = {"adan": 3, "adamw": 2, "sgd": 1, "lars": 1}
    if config.name not in needed:
        raise UsageError(f"optimizer.name must be one of {', '.join(needed)}, found '{config.name}'.")
    betas = tuple(float(beta) for beta in config.betas)
    if len(betas) < needed[config.name]:
        raise UsageError(
            f"optimizer.betas must have {needed[config.name]} numbers for {config.name}, found {len(betas)}: "
            f"{list(betas)}. Give --optimizer.betas."
        )
    if config.name == "adan":
        return Adan(groups, lr=lr, betas=(betas[0], betas[1], betas[2]), eps=config.eps)
    parameters = [p for group in groups for p in group["params"]]
    fused = not scaled and all(p.device.type in ("cpu", "cuda") for p in parameters)  # one pass over memory
    if config.name == "adamw":
        return AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=config.eps, fused=fused)
    if config.name == "sgd":
        divided = any(map(is_divided, parameters))  # which torch fuses for AdamW alone
        return SGD(groups, lr=lr, momentum=betas[0], fused=fused and not divided)
    # timm leaves a group without decay alone, which is right for biases and norms, not for weights that do not decay
    adapted = [{**each, "always_adapt": each["params"][0].ndim > 1} for group in groups for each in _by_ndim(group)]
    return Lars(adapted, lr=lr, momentum=betas[0], eps=config.eps)


def _by_ndim(group: dict) -> list[dict]:
    """A group's matrices and kernels apart from its vectors, where it has both."""
    named = list(zip(group["names"], group["params"], strict=True))
    parts = [[(n, p) for n, p in named if (p.ndim > 1) == several] for several in (True, False)]
    return [{**group, "names": [n for n, _ in part], "params": [p for _, p in part]} for part in parts if part]


def scaled_lr(config: OptimizerConfig, images_per_step: int) -> tuple[float, str]:
    """The rate for so many images per optimiser step over all processes, and how it was reached, in words."""
    if config.lr_reference_batch <= 0:
        return config.lr, f"learning rate {config.lr:g}, taken as it is ({images_per_step} images a step)"
    lr = config.lr * images_per_step / config.lr_reference_batch
    how = f"{config.lr:g} x {images_per_step} images a step / {config.lr_reference_batch}"
    return lr, f"learning rate {lr:g} = {how}"
