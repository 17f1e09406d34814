import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image

from cmid.config import MixingConfig
from cmid.contracts import View, Views
from cmid.data.mixing import RandAugment, TrainingBatch
from cmid.errors import UsageError

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def batch_of(count, classes=3):
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    view = View(images, torch.zeros(count, 4), torch.zeros(count, dtype=torch.bool))
    return Views((view,), torch.arange(count), labels=torch.arange(count) % classes)


def prepared(count, seed=0, **mixing):
    torch.manual_seed(seed)
    off = {"mixup": 0.0, "cutmix": 0.0, "erasing": 0.0}
    return TrainingBatch(MEAN, STD, MixingConfig(**{**off, **mixing}), classes=3)(batch_of(count))


def test_switched_off_it_only_normalises():
    batch = prepared(4)
    assert torch.allclose(batch[0].images, (batch_of(4)[0].images / 255 - 0.5) / 0.25, atol=1e-6)
    assert torch.equal(batch.labels, torch.arange(4) % 3) and torch.equal(batch.indices, torch.arange(4))


@pytest.mark.parametrize("count", [5, 6])
@pytest.mark.parametrize("how", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_labels_are_mixed_by_the_shares_of_the_images(count, how):
    batch, plain = prepared(count, seed=3, **how), prepared(count)[0].images
    assert batch.labels.shape == (count, 3)
    assert torch.allclose(batch.labels.sum(1), torch.ones(count), atol=1e-6)
    assert batch[0].images.shape == plain.shape
    if how == {"mixup": 0.8}:  # what the labels say is what was done to the pixels
        last, share = count - 1, batch.labels[0, 0]
        assert 0 < share < 1 and batch.labels[0, last % 3] == 1 - share
        assert torch.allclose(batch[0].images[0], share * plain[0] + (1 - share) * plain[last], atol=1e-5)


def test_draws_follow_torchs_seed_and_leave_other_generators_alone():
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    state, numbers = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    everything = {"mixup": 0.8, "cutmix": 1.0, "erasing": 1.0}
    one, two, other = (prepared(4, seed=s, **everything) for s in (1, 1, 2))
    assert torch.equal(one[0].images, two[0].images) and torch.equal(one.labels, two.labels)
    assert not torch.equal(one[0].images, other[0].images)
    assert random.getstate() == state and np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002


def test_randaugment_leaves_a_picture_one_bit_at_least():
    """At its greatest level timm asks Pillow for no bit at all."""
    touch = RandAugment("rand-m10-n1-inc1", 16, MEAN)
    [posterize] = [op for op in touch._policy.ops if op.name == "PosterizeIncreasing"]
    picture = Image.fromarray(np.full((16, 16, 3), 200, np.uint8))
    posterize.prob = 1.0
    assert np.asarray(posterize(picture)).tolist() == np.full((16, 16, 3), 128).tolist()
    assert pickle.loads(pickle.dumps(touch))._policy.ops, "a loader process gets it so where it is not forked"  # noqa: S301 - our own bytes


def test_randaugment_is_a_function_of_its_seed():
    crop = batch_of(1)[0].images[0]
    touch = RandAugment("rand-m9-mstd0.5-inc1", 16, MEAN)
    made = []
    for seed in (0, 0, *range(1, 9)):
        one = crop.clone()
        touch(one, seed)
        made.append(one)
    assert torch.equal(made[0], made[1]) and any(not torch.equal(made[0], each) for each in made[2:])
    assert made[0].dtype == torch.uint8


@pytest.mark.parametrize("policy", ["augmix-m3", "rand-nonsense-m9", "strong"])
def test_an_unknown_policy_is_named(policy):
    with pytest.raises(UsageError, match="randaugment is"):
        RandAugment(policy, 16, MEAN)
