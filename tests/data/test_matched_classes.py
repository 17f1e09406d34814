import numpy as np
import torch

from cmid.data.matched_classes import MatchedClasses


class Numbers:
    """Six images of four classes, of which one has none."""

    bands, dtype, fresh = 3, torch.uint8, False
    labels, classes = np.array([0, 1, 3, 1, 0, 3]), ("lake", "river", "sea", "wood")

    def __len__(self):
        return 6

    def name(self, i):
        return f"{self.classes[self.labels[i]]}{i}"

    def decode(self, i, reduction=None):
        return i


def test_labels_are_those_of_the_other_side_and_images_keep_their_names():
    found = MatchedClasses(Numbers(), ("wood", "field", "lake"))
    assert [found.name(i) for i in range(len(found))] == ["lake0", "wood2", "lake4", "wood5"]
    assert [found.classes[label] for label in found.labels] == ["lake", "wood", "lake", "wood"]
    assert found.unknown == {"river": 2} and found.absent == ("field",) and found.decode(1) == 2


def test_nothing_in_common_leaves_nothing():
    found = MatchedClasses(Numbers(), ("town", "sea"))
    assert len(found) == 0 and found.unknown == {"lake": 2, "river": 2, "wood": 2} and found.absent == ("town", "sea")


class Several(Numbers):
    labels = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 1]], np.float32)

    def name(self, i):
        return str(i)


def test_of_several_classes_only_unknown_ones_are_left_out_and_no_image_is():
    found = MatchedClasses(Several(), ("wood", "field", "lake"))
    assert len(found) == 6 and found.labels.dtype == np.float32
    assert found.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert found.unknown == {"river": 3} and found.absent == ("field",)
