"""The segmenter: shapes over backbones, its terms against a formula, what learns and what does not, steps that help."""

import pytest
import torch
from torch.nn import functional as F

from cmid.backbones import create_backbone
from cmid.contracts import View, Views
from cmid.errors import UsageError
from cmid.tasks.segmentation import Segmenter


def make(name="resnet18", classes=5, width=16, in_chans=3, **settings):
    torch.manual_seed(0)
    return Segmenter(create_backbone(name, in_chans, mask_stage=None), classes, width=width, **settings)


def batch_of(count=2, classes=5, size=64, bands=3, unlabelled=0.2):
    draw = torch.Generator().manual_seed(3)
    images = torch.randn(count, bands, size, size, generator=draw)
    labels = torch.randint(0, classes, (count, size, size), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < unlabelled] = 255
    view = View(images, torch.zeros(count, 4), torch.zeros(count, dtype=torch.bool))
    return Views((view,), torch.arange(count), labels=labels)


@pytest.mark.parametrize("head", ["upernet", "lateral_sum"])
@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "test_vit", "test_convnext"])
def test_every_kind_of_backbone_scores_every_pixel_and_learns_whole(name, head):
    task = make(name, classes=7, in_chans=4, head=head).train()
    batch = batch_of(classes=7, bands=4)
    terms = task(batch)
    assert terms.keys() == {"segmentation", "auxiliary"} and all(t.ndim == 0 for t in terms.values())
    sum(terms.values()).backward()
    assert [n for n, p in task.named_parameters() if p.grad is None] == []  # DDP would wait for them
    task.eval()
    images = torch.randn(1, 4, 64, 128)
    assert task.logits(images).shape == (1, 7, 64, 128) and task.logits(images).dtype == torch.float32
    torch.testing.assert_close(task.probabilities(images).sum(1), torch.ones(1, 64, 128))


def test_the_terms_are_the_two_heads_losses():
    batch, task = batch_of(), make(average="all", auxiliary_weight=0.3).eval()
    terms = task(batch)
    by_hand = F.cross_entropy(task.logits(batch[0].images), batch.labels, ignore_index=255, reduction="none").mean()
    torch.testing.assert_close(terms["segmentation"], by_hand)
    maps = task.backbone(batch[0].images).maps
    scores = task.auxiliary(maps[2])  # stride 16
    scores = F.interpolate(scores, (64, 64), mode="bilinear", align_corners=False)
    by_hand = F.cross_entropy(scores, batch.labels, ignore_index=255, reduction="none").mean()
    torch.testing.assert_close(terms["auxiliary"], 0.3 * by_hand)
    assert make(auxiliary_weight=0.0)(batch).keys() == {"segmentation"}


def test_losses_are_mixed_by_their_weights():
    logits, labels = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(1)), batch_of(size=8).labels
    weights = torch.tensor([1.0, 2.0, 3.0, 1.0, 0.5])
    alone = [
        make(cross_entropy=c, focal=f, dice=d, class_weights=weights, gamma=1.5).loss(logits, labels)
        for c, f, d in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    mixed = make(cross_entropy=0.5, focal=2.0, dice=3.0, class_weights=weights, gamma=1.5).loss(logits, labels)
    torch.testing.assert_close(mixed, 0.5 * alone[0] + 2 * alone[1] + 3 * alone[2])
    torch.testing.assert_close(alone[0], F.cross_entropy(logits, labels, weights, ignore_index=255))


def test_parameters_of_the_published_model_by_hand():
    with torch.device("cpu"):
        task = make("resnet50", classes=6, width=None)
    auxiliary = 1024 * 256 * 9 + 2 * 256 + 256 * 6 + 6
    backbone = 25_557_032 - (2048 * 1000 + 1000)  # torchvision's ResNet-50 without its classifier
    assert sum(p.numel() for p in task.auxiliary.parameters()) == auxiliary
    assert sum(p.numel() for p in task.parameters()) == 40_513_536 + 512 * 6 + 6 + auxiliary + backbone
    last = task.scores[1]
    assert last.weight.std().item() == pytest.approx(0.01, rel=0.1) and (last.bias == 0).all()
    assert task.scores[0].p == task.auxiliary[1][0].p == 0.1


def test_a_frozen_backbone_does_not_change_at_all():
    task = make(frozen=True).train()
    before = {k: v.clone() for k, v in task.backbone.state_dict().items()}
    sum(task(batch_of()).values()).backward()
    assert all(torch.equal(before[k], v) for k, v in task.backbone.state_dict().items()), "batch-norm counted"
    assert all(p.grad is None for p in task.backbone.parameters()) and task.scores[1].weight.grad is not None
    assert not task.backbone.training and task.decoder.training


@pytest.mark.parametrize("head", ["upernet", "lateral_sum"])
def test_two_images_are_learned_by_heart(head):
    task, batch = make(classes=3, head=head, dropout=0.0, width=32), batch_of(unlabelled=0.0)
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[0, :32], labels[1, :, 40:] = 1, 2
    batch = Views(batch.crops, batch.indices, labels=labels)
    optimiser = torch.optim.AdamW(task.parameters(), 2e-3)
    for _ in range(25):
        loss = sum(task.train()(batch).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = task.train().logits(batch[0].images).argmax(1) == labels  # batch statistics: the running ones lag behind
    assert right.float().mean() > 0.97


def test_align_corners_reaches_every_resizing():
    images = batch_of()[0].images
    straight, aligned = make(align_corners=False).eval(), make(align_corners=True).eval()
    scores = aligned.scores(aligned.decoder(aligned.levels(aligned.backbone(images).maps)))
    expected = F.interpolate(scores, (64, 64), mode="bilinear", align_corners=True)
    torch.testing.assert_close(aligned.logits(images), expected)
    assert not torch.allclose(straight.logits(images), aligned.logits(images), atol=1e-4)


def test_two_processes_equal_one(two_processes):
    two_processes("tests.tasks.segmentation_in_two_processes")


def test_what_does_not_fit_is_refused():
    task, batch = make(), batch_of()
    with pytest.raises(ValueError, match="this batch has none"):
        task(Views(batch.crops, batch.indices))
    for labels in (batch.labels[:, :32], batch.labels.int(), batch.labels[:, 0, 0]):
        with pytest.raises(UsageError, match="a class for every pixel"):
            task(Views(batch.crops, batch.indices, labels=labels))
    with pytest.raises(UsageError, match="multiples of 32"):
        task.eval().logits(torch.randn(1, 3, 60, 64))
    four = torch.ones(4)  # for 5 classes
    for settings in ({"head": "unet"}, {"classes": 1}, {"cross_entropy": 0.0}, {"dice": -1.0}, {"class_weights": four}):
        with pytest.raises(UsageError, match="found"):
            make(**settings)
