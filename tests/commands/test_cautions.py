"""What a person is told of settings that are seldom meant."""

import pytest

from cmid.commands.cautions import cautions
from cmid.config import CMIDConfig, KnnConfig, PretrainConfig, SwAVConfig


def test_a_queue_of_negatives_and_prototypes_for_few_images_are_cautioned_against():
    said = cautions(PretrainConfig(method="moco_v2"), 500)
    assert any("moco_v2.queue_size 250 or less would not" in note for note in said)
    said = cautions(PretrainConfig(method="swav", swav=SwAVConfig(queue_size=3840)), 500)
    assert any("3,000 prototypes for 500 images" in note and "swav.prototypes 50 is plenty" in note for note in said)
    assert not any("queue" in note for note in said), "SwAV's queue holds no negatives"
    assert not any("prototypes" in note for note in cautions(PretrainConfig(method="swav"), 100_000))


def test_settings_of_a_knn_without_images_are_pointed_out():
    said = cautions(PretrainConfig(knn=KnnConfig(every_epochs=2, k=3)), 100_000)
    assert "no kNN is computed: knn.k, knn.every_epochs is given, but knn.data, the images to look at, is not" in said
    for knn in (KnnConfig(), KnnConfig(data="labelled", k=3)):
        assert not any("kNN" in note for note in cautions(PretrainConfig(knn=knn), 100_000))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"global_form": "byol", "queue_size": 4096}, "the global branch has no queue: cmid.queue_size"),
        ({"predictor_hidden": 8}, "the global branch has no predictor: cmid.predictor_hidden"),
        ({"global_weight": 0.0, "global_dim": 8}, "cmid.global_weight is 0: cmid.global_dim"),
        ({"reconstruction_weight": 0.0, "frequency_weight": 0.5}, "cmid.reconstruction_weight is 0: cmid.frequency"),
        ({"local_weight": 0.0, "local_stage": 2}, "cmid.local_weight is 0: cmid.local_stage"),
    ],
)
def test_settings_of_a_branch_that_is_off_are_pointed_out(settings, said):
    notes = [note for note in cautions(PretrainConfig(cmid=CMIDConfig(**settings)), 10**6) if "not used" in note]
    assert len(notes) == 1 and f"not used, as {said}" in notes[0]


def test_settings_that_are_read_are_not_pointed_out():
    read = CMIDConfig(global_form="byol", predictor_hidden=8, local_stage=2, frequency_weight=0.5)
    assert not any("not used" in note for note in cautions(PretrainConfig(cmid=read), 10**6))
    off = CMIDConfig(local_weight=0.0, reconstruction_weight=0.0)
    assert not any("not used" in note for note in cautions(PretrainConfig(cmid=off), 10**6))
