"""A timm model as a Backbone: its stages as a Pyramid, and one place where the mask token enters.

timm's own `forward_intermediates` runs the model; the token enters through a hook on the module whose output it
changes. So no family's forward is written again here: STEM_ENDS is all that is known of them.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models import group_parameters
from torch import Tensor, nn

from cmid.contracts import Backbone, Pyramid
from cmid.errors import CmidError, UsageError

STEM_ENDS = (
    "maxpool",  # ResNet and kin
    "patch_embed",  # Swin, SwinV2, ViT, PVT: before position embedding and class token
    "stem",  # ConvNeXt, RegNet, ResNetV2, MaxViT
    "features.pool0",  # DenseNet
    "bn1",  # EfficientNet, MobileNet: with the activation after conv_stem
)
"""Submodules whose output is the embedded image; of those a model has, the first."""

HEADS = ("fc", "head", "head_dist", "classifier", "last_linear")
"""Modules of timm's models, and `fc` of torchvision's ResNets, that a backbone leaves behind."""


class TimmBackbone(Backbone):
    """`create_backbone` makes these.

    Attributes:
        model: the timm model, without its head.
        mask_token: `(1, C, 1, 1)`, zero at first, the only parameter that is not timm's; None where no token enters.
        mask_stage: which stage takes the token, None without one.
        mask_stride: pixels of the input per position of the grid that takes the token.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        in_chans: int,
        *,
        fixed_size: tuple[int, int] | None = None,
        mask_stage: int | None = 0,
        replace: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.in_chans = name, in_chans
        self.fixed_size, self.replace, self.mask_stage = fixed_size, replace, mask_stage
        if not hasattr(model, "forward_intermediates") or not getattr(model, "feature_info", None):
            raise UsageError(f"{name} gives no feature maps in timm; choose another backbone.")
        self.model = model
        info = getattr(model.feature_info, "info", model.feature_info)
        self._levels = _pyramid_levels([level["reduction"] for level in info])
        self.strides = tuple(int(info[i]["reduction"]) for i in self._levels)
        whole = set(model.state_dict())
        entering = self._probe(self._entries([level["module"] for level in info]))
        self._levels = self.model.prune_intermediate_layers(self._levels, prune_norm=not self._norm_last)
        head = getattr(model, "head", None)  # HRNet's is a word
        if isinstance(head, nn.Module) and any(True for _ in head.parameters()):
            model.head = nn.Identity()  # older timm leaves ConvNeXt's, whose norm nothing would train
        self._left_behind = frozenset(whole - set(model.state_dict()))
        batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
        self.norm = "batch" if batch_norm else "layer"

        self._mask: Tensor | None = None
        self.mask_stride: int | None = None
        self.register_parameter("mask_token", None)
        if entering is not None:
            self._place_token(*entering)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Pyramid:
        """Features of `images`; see `Backbone.forward`. The last map has passed the model's final norm.

        Raises:
            UsageError: wrong bands, a size the strides do not divide, a mask whose grid does not divide the stage's,
                or a mask where no token enters.
        """
        self._check_images(images)
        return Pyramid(self.maps(images, mask), self.strides)

    def maps(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """The maps of `forward` for sizes that the strides need not divide, where the model itself pads."""
        if mask is None:
            return self._run(images)
        # The hook reads the mask from here and clears it. Left over, the token's module did not run.
        self._mask = self._on_token_grid(mask, images)
        try:
            maps = self._run(images)
            if self._mask is not None:
                raise CmidError(f"The mask token never entered {self.name} at mask_stage {self.mask_stage}; use 0.")
        finally:
            self._mask = None
        return maps

    def weights(self) -> dict[str, Tensor]:
        """The state under timm's names: no head, no mask token."""
        return dict(self.model.state_dict())

    def depths(self) -> dict[str, int]:
        """The layer of each parameter by timm's grouping; the mask token enters with the first."""
        matcher = getattr(self.model, "group_matcher", None)
        if matcher is None:
            return {}
        layers = {f"model.{name}": int(i) for name, i in group_parameters(self.model, matcher(), reverse=True).items()}
        return layers if self.mask_token is None else {**layers, "mask_token": 0}

    def load_weights(self, state: dict[str, Tensor], *, strict: bool = True) -> list[str]:
        """Takes weights named as timm names them; heads are dropped, position embeddings resized to the grid.

        Args:
            state: such as `weights()` gives, or of a whole timm model or torchvision ResNet.
            strict: False loads what fits by name and shape.

        Returns:
            The names left as they were; empty where all was loaded.

        Raises:
            CmidError: strict, and something is missing, unexpected or of another shape.
        """
        own = self.weights()
        given = {key: value for key, value in state.items() if key in own or not self._is_head(key)}
        if "pos_embed" in given and "pos_embed" in own:
            given["pos_embed"] = self._resized_positions(given["pos_embed"], own["pos_embed"])
        missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
        unexpected = [key for key in given if key not in own]
        reshaped = [key for key in own if key in given and given[key].shape != own[key].shape]
        if strict and (missing or unexpected or reshaped):
            raise CmidError(_misfit(self.name, own, given, missing, unexpected, reshaped))
        self.model.load_state_dict({k: v for k, v in given.items() if k in own and k not in reshaped}, strict=False)
        return missing + reshaped

    def _run(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            self.model.forward_intermediates(
                images, indices=self._levels, norm=self._norm_last, intermediates_only=True
            )
        )

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_chans:
            raise UsageError(
                f"{self.name} was built for images (B, {self.in_chans}, H, W); found {tuple(images.shape)}. "
                "Create it with the in_chans of your images."
            )
        self._check_size(images.shape[2], images.shape[3])

    def _check_size(self, height: int, width: int) -> None:
        if self.fixed_size is not None:
            if (height, width) != self.fixed_size:
                raise UsageError(
                    f"{self.name} takes images of {self.fixed_size[0]} x {self.fixed_size[1]} px only; found "
                    f"{height} x {width}. Create it with img_size, or resize the images."
                )
            return
        stride = self.strides[-1]
        if height % stride or width % stride:
            fits = " x ".join(str(max(1, round(side / stride)) * stride) for side in (height, width))
            raise UsageError(
                f"{self.name} takes images whose sides are multiples of {stride} px; found {height} x {width}. "
                f"{fits} would fit: crop, pad or resize."
            )

    # --- where the token enters ---------------------------------------------------------------------------------

    def _entries(self, level_modules: list[str]) -> list[str]:
        """Names of modules whose output may take the token, the likeliest first."""
        if self.mask_stage is None:
            return []
        if not 0 <= self.mask_stage < len(self._levels):
            raise UsageError(
                f"{self.name} has {len(self._levels)} stages: mask_stage is 0 (after the stem) to "
                f"{len(self._levels) - 1}; found {self.mask_stage}."
            )
        modules = dict(self.model.named_modules())
        if self.mask_stage > 0:
            # MViTv2, Twins and HRNet call some outputs by names that no module of theirs has
            return [end for end in (level_modules[self._levels[self.mask_stage - 1]],) if end in modules]
        entries = []
        for end in STEM_ENDS:
            if end in modules:
                entries.append(end)
                if isinstance(modules[end], nn.Sequential):  # ResNetV2 calls the stem's children one by one
                    entries += [f"{end}.{child}" for child, _ in modules[end].named_children()][-1:]
        return entries

    def _probe(self, entries: list[str]) -> tuple[str, tuple[int, ...], tuple[int, int]] | None:
        """Sees the model run once, at its own size if no other will do: sets `channels` and `_norm_last`.

        Returns:
            The first of `entries` that ran, the shape of its output, and the image's (height, width); None if none.
        """
        stride = max(self.strides)
        default = (getattr(self.model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[-2:]
        sizes = [self.fixed_size] if self.fixed_size else [(2 * stride, 3 * stride), tuple(default)]
        problem = ""
        for size in sizes:
            for self._norm_last in (True, False):  # Hiera has no norm to give its last map
                try:
                    entering = self._run_once(size, entries)
                except (AssertionError, RuntimeError, ValueError) as error:
                    problem = f": {error}" if str(error) else ""
                    continue
                if size != sizes[0]:
                    self.fixed_size = size
                return entering
        raise UsageError(f"{self.name} gives no feature maps of whole strides {self.strides}{problem}; choose another.")

    @torch.no_grad()
    def _run_once(
        self, size: tuple[int, int], entries: list[str]
    ) -> tuple[str, tuple[int, ...], tuple[int, int]] | None:
        parameter = next(self.model.parameters())
        image = torch.zeros(1, self.in_chans, *size, device=parameter.device, dtype=parameter.dtype)
        shapes: dict[str, tuple[int, ...]] = {}

        def note(entry: str) -> Callable[[nn.Module, object, object], None]:
            def hook(module: nn.Module, args: object, output: object) -> None:
                if isinstance(output, Tensor) and output.ndim in (3, 4):
                    shapes[entry] = tuple(output.shape)

            return hook

        handles = [self.model.get_submodule(entry).register_forward_hook(note(entry)) for entry in entries]
        was_training = self.model.training
        self.model.eval()  # keeps running statistics and the random state
        try:
            maps = self._run(image)
        finally:
            self.model.train(was_training)
            for handle in handles:
                handle.remove()
        self.channels = tuple(m.shape[1] for m in maps)
        if any(m.shape[2] * s != size[0] or m.shape[3] * s != size[1] for m, s in zip(maps, self.strides, strict=True)):
            raise ValueError(f"images of {size} give maps of {[tuple(m.shape[2:]) for m in maps]}")
        return next(((entry, shapes[entry], size) for entry in entries if entry in shapes), None)

    def _place_token(self, entry: str, shape: tuple[int, ...], size: tuple[int, int]) -> None:
        """Makes the parameter and hangs the hook on `entry`, whose output has `shape` for an image of `size`."""
        height, width = size
        self._prefix = 0
        if len(shape) == 3:
            self._layout, channels = "NLC", shape[2]
            self.mask_stride = self.strides[max(0, (self.mask_stage or 0) - 1)]
            self._prefix = shape[1] - (height // self.mask_stride) * (width // self.mask_stride)
        elif (shape[1] * width, shape[2] * width) == (shape[2] * height, shape[3] * height):  # C, H, W all alike
            self._layout = str(getattr(self.model, "output_fmt", "NCHW"))
            channels, self.mask_stride = shape[1], height // shape[2]
        elif shape[1] * width == shape[2] * height:
            self._layout, channels, self.mask_stride = "NHWC", shape[3], height // shape[1]
        else:
            self._layout, channels, self.mask_stride = "NCHW", shape[1], height // shape[2]
        self.mask_token = nn.Parameter(torch.zeros(1, channels, 1, 1))
        # A bound method: a deep copy of this backbone binds its own
        self.model.get_submodule(entry).register_forward_hook(self._enter)

    def _on_token_grid(self, mask: Tensor, images: Tensor) -> Tensor:
        """`mask` `(B, h, w)` repeated to the grid of the stage that takes the token."""
        if self.mask_token is None or self.mask_stride is None:
            raise UsageError(
                f"{self.name} takes no mask: "
                + (
                    "it was created with mask_stage=None."
                    if self.mask_stage is None
                    else f"no place for the token is known at mask_stage {self.mask_stage}. Another of 0 to "
                    f"{len(self.strides) - 1} may have one (then mask_token is not None); else take another model."
                )
            )
        height, width = (-(-side // self.mask_stride) for side in images.shape[2:])
        if mask.dtype != torch.bool or mask.ndim != 3 or mask.shape[0] != images.shape[0]:
            raise UsageError(
                f"A mask is bool ({images.shape[0]}, h, w), True = hidden; found {mask.dtype} {tuple(mask.shape)}."
            )
        rows, columns = mask.shape[1:]
        if rows == 0 or columns == 0 or height % rows or width % columns:
            raise UsageError(
                f"The mask's grid must divide {self.name}'s grid of {height} x {width} at mask_stage "
                f"{self.mask_stage} for images of {images.shape[2]} x {images.shape[3]} px; found {rows} x {columns}."
            )
        return mask.repeat_interleave(height // rows, 1).repeat_interleave(width // columns, 2)

    def _enter(self, module: nn.Module, args: object, features: Tensor) -> Tensor | None:
        """The forward hook: `features` with the token at the hidden positions."""
        mask, self._mask = self._mask, None
        if mask is None:
            return None
        token = self.mask_token.to(features.dtype)
        if self._layout == "NCHW":
            mask = mask[:, None]
        elif self._layout == "NHWC":
            mask, token = mask[..., None], token.view(1, 1, 1, -1)
        else:
            mask, token = F.pad(mask.flatten(1), (self._prefix, 0))[..., None], token.view(1, 1, -1)
        if self.replace:
            return torch.where(mask, token, features)
        return torch.addcmul(features, mask.to(features.dtype), token)

    # --- loading ------------------------------------------------------------------------------------------------

    def _is_head(self, key: str) -> bool:
        classifier = (getattr(self.model, "pretrained_cfg", None) or {}).get("classifier") or ()
        heads = HEADS + ((classifier,) if isinstance(classifier, str) else tuple(classifier))
        return key in self._left_behind or key.startswith(tuple(f"{head}." for head in heads))

    def _resized_positions(self, given: Tensor, own: Tensor) -> Tensor:
        grid = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        if given.shape == own.shape or grid is None or given.ndim != 3 or given.shape[-1] != own.shape[-1]:
            return given
        return resample_abs_pos_embed(given, new_size=list(grid), num_prefix_tokens=own.shape[1] - grid[0] * grid[1])


def _pyramid_levels(reductions: list[int]) -> list[int]:
    """Which of timm's levels make the pyramid: four evenly spaced where all have one stride, else stride 4 and up."""
    if len(set(reductions)) == 1 and len(reductions) > 4:
        return [(i + 1) * len(reductions) // 4 - 1 for i in range(4)]
    coarse = [i for i, reduction in enumerate(reductions) if reduction >= 4]
    return coarse or list(range(len(reductions)))


def _misfit(
    name: str,
    own: dict[str, Tensor],
    given: dict[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    reshaped: list[str],
) -> str:
    """What does not fit, and what to do about it, in one line."""

    def some(keys: list[str]) -> str:
        return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")

    parts = []
    if missing:
        parts.append(f"{len(missing)} of {len(own)} tensors are missing ({some(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} are unexpected ({some(unexpected)})")
    if reshaped:
        shapes = [f"{k}: expected {tuple(own[k].shape)}, found {tuple(given[k].shape)}" for k in reshaped]
        parts.append(f"{len(reshaped)} have another shape ({some(shapes)})")
    first = reshaped[0] if len(reshaped) == 1 and not missing and not unexpected else None
    if first is not None and own[first].ndim == 4 and own[first].shape[1] != given[first].shape[1]:
        advice = f"The file is for {given[first].shape[1]} bands: create the backbone with that in_chans."
    else:
        advice = (
            "This is a checkpoint of another architecture or layout: create the backbone it was saved from; names must "
            "be timm's, which of torchvision's models the ResNets have."
        )
    return f"The weights do not fit {name}: {'; '.join(parts)}. {advice}"
