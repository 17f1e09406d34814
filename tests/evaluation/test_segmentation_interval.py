"""The interval of mIoU over images is that of resampled images, scored one by one."""

import numpy as np
import pytest
import torch

from cmid.errors import UsageError
from cmid.evaluation.segmentation import Protocol, score_segmentation
from cmid.evaluation.segmentation_interval import mean_iou_interval

COUNTS = np.random.default_rng(0).integers(0, 40, (7, 3, 3)) * (np.random.default_rng(1).random((7, 3, 3)) < 0.7)


@pytest.mark.parametrize(
    "protocol", [Protocol("all"), Protocol("two", (0, 1)), Protocol("without the third", (0, 1), (2,))], ids=str
)
def test_by_resampling_one_by_one(protocol):
    found = mean_iou_interval(COUNTS, protocol, 300, 1)

    def scored(counts):
        return score_segmentation(torch.from_numpy(counts.sum(0)), protocol).mean_iou

    assert found.value == pytest.approx(scored(COUNTS))
    draws = np.random.default_rng(1).multinomial(7, [1 / 7] * 7, size=300)
    each = [scored(COUNTS * times[:, None, None]) for times in draws]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(each, (0.025, 0.975))))
    assert found.low < found.value < found.high


def test_one_image_has_no_width_and_none_is_an_error():
    found = mean_iou_interval(COUNTS[:1], Protocol("all"))
    assert found.low == found.value == found.high
    with pytest.raises(UsageError, match="found none"):
        mean_iou_interval(COUNTS[:0], Protocol("all"))
