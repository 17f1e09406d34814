"""Probes as the trainer calls them: keys, teacher, and the learner left as it was."""

import math

import pytest
import torch

from cmid.evaluation.features import extract_features
from cmid.evaluation.knn import knn_predict
from cmid.evaluation.online import FeatureSpread, OnlineKnn
from tests.evaluation.toy import ToyBackbone, ToyLearner, coloured_batches


def neighbours():
    return coloured_batches(seed=1)


def queries():
    return coloured_batches(seed=2)


@pytest.fixture
def learner():
    torch.manual_seed(0)
    return ToyLearner(teacher=ToyBackbone()).train()


def test_knn_is_that_of_the_student_and_of_the_teacher(learner):
    probe = OnlineKnn(neighbours, queries, k=5, every_epochs=3)
    scores = probe(learner, "cpu")
    assert (probe.name, probe.every_epochs) == ("knn", 3)
    assert scores.keys() == {"knn_top1", "knn_top1_teacher"}
    for key, backbone in (("knn_top1", learner.backbone), ("knn_top1_teacher", learner.teacher)):
        train, train_y = extract_features(backbone, neighbours(), "cpu")
        test, test_y = extract_features(backbone, queries(), "cpu")
        expected = (knn_predict(train, train_y, test, [5])[5] == test_y).float().mean().item() * 100
        assert scores[key] == pytest.approx(expected)
    assert scores["knn_top1"] > 80
    assert learner.training and learner.teacher.coarse[1].training


def test_no_teacher_no_teacher_key_and_k_of_a_tiny_set():
    probe = OnlineKnn(lambda: coloured_batches(count=3), queries, k=5)
    assert probe(ToyLearner(), "cpu").keys() == {"knn_top1"}


def test_spread_takes_the_first_images_only(learner):
    taken = []

    def batches():
        for batch in coloured_batches(count=100):
            taken.append(len(batch[0]))
            yield batch

    logs = FeatureSpread(batches, limit=40)(learner, "cpu")
    assert taken == [16, 16, 16]
    assert logs.keys() == {"feature_std", "effective_rank"}
    assert 1 <= logs["effective_rank"] <= 8 and 0 < logs["feature_std"] < 1 / math.sqrt(8)
    whole = FeatureSpread(lambda: coloured_batches(count=100, batch=40)[:1])(learner, "cpu")
    assert logs == pytest.approx(whole)


def test_spread_shows_collapse(learner):
    learner.backbone.coarse[0].weight.data.zero_()
    logs = FeatureSpread(neighbours)(learner, "cpu")
    assert logs["feature_std"] == pytest.approx(0, abs=1e-6) and logs["effective_rank"] == pytest.approx(1)
