"""Class activation maps: their mean is the score, exactly, for every family; and they are what Grad-CAM finds."""

import pytest
import torch

from cmid.backbones import create_backbone
from cmid.evaluation.activation import class_activation
from cmid.tasks.classification import Classifier

SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}
BACKBONES = [
    ("resnet18", {}), ("swin_tiny_patch4_window7_224", SWIN), ("swinv2_tiny_window8_256", SWIN), ("convnext_atto", {}),
    ("test_vit", {}), ("vit_tiny_patch16_224", {"img_size": 64}), ("test_efficientnet", {}),
]  # fmt: skip


def made(name, settings, multi_label=False):
    torch.manual_seed(0)
    task = Classifier(create_backbone(name, mask_stage=None, **settings), 5, multi_label=multi_label).eval()
    torch.nn.init.normal_(task.head.weight)
    torch.nn.init.normal_(task.head.bias)
    return task


@pytest.mark.parametrize(("name", "settings"), BACKBONES, ids=[name for name, _ in BACKBONES])
def test_the_mean_of_a_class_map_is_its_score(name, settings):
    task, images = made(name, settings), torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    maps = class_activation(task, images)
    with torch.no_grad():
        scores, last = task.logits(images), task.backbone(images).last
    assert maps.shape == (3, 5, *last.shape[-2:]) and maps.shape[-1] > 1
    torch.testing.assert_close(maps.mean((2, 3)), scores, rtol=1e-4, atol=1e-4)
    assert maps.std((2, 3)).min() > 1e-3, "flat maps would have the right mean as well"


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_up_to_scale_it_is_grad_cam_on_the_last_map(name):
    task, images = made(name, {}), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    last = task.backbone(images).last.detach().requires_grad_()
    for k in range(5):
        score = task.head(last.mean((2, 3)))[:, k].sum()
        (gradient,) = torch.autograd.grad(score, last)
        grad_cam = (gradient.mean((2, 3), keepdim=True) * last).sum(1)
        here = class_activation(task, images)[:, k] - task.head.bias[k]
        torch.testing.assert_close(here, grad_cam.detach() * last[0, 0].numel(), rtol=1e-4, atol=1e-4)


def test_a_spot_shows_where_it_is():
    """A head that knows one channel, and an image with that channel at one place: the map is bright there only."""
    task = made("test_resnet", {})
    images = torch.zeros(1, 3, 160, 160)
    images[..., 100:140, 10:50] = 4.0
    with torch.no_grad():
        bare, spot = (task.backbone(x).last for x in (torch.zeros_like(images), images))
        difference = (spot - bare)[0]
        channel = difference.abs().amax((1, 2)).argmax()
        task.head.weight.zero_()
        task.head.bias.zero_()
        task.head.weight[0, channel] = difference[channel].flatten()[difference[channel].abs().argmax()].sign()
    maps = class_activation(task, images)[0, 0] - class_activation(task, torch.zeros_like(images))[0, 0]
    rows, columns = maps.shape
    y, x = divmod(int(maps.argmax()), columns)
    assert 100 <= (y + 0.5) * 160 / rows <= 140 and 10 <= (x + 0.5) * 160 / columns <= 50
