"""The rows of a comparison: what each is, reads and learns from."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cmid.commands import prepare
from cmid.commands.compare_images import Images
from cmid.commands.compare_plan import key_of, plan_rows
from cmid.config import PretrainConfig, ViewConfig
from cmid.data.folder import FolderSource
from cmid.errors import UsageError
from tests.commands.test_compare import draw


def folders(root):
    """12 images without labels, and 8 of each of two classes."""
    for number, tint in enumerate((0, 120)):
        draw(root / "labelled" / f"class{number}", 8, number, tint)
    return str(draw(root / "images", 12, 9, 60)), str(root / "labelled")


def test_rows_read_their_own_numbers_alone():
    config = prepare(
        "compare", {"data": "a", "labelled": "b", "methods": ("byol", "cmid"), "pretrain.cmid.queue_size": 64}
    )
    byol, cmid = plan_rows(config)
    assert cmid.config.cmid.queue_size == 64 and byol.config.cmid.queue_size == 65536
    assert (byol.title, cmid.title) == ("BYOL", "CMID")
    with pytest.raises(UsageError, match="nothing to compare"):
        plan_rows(prepare("compare", {"data": "a", "labelled": "b", "methods": ()}))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seeds": ()}, "seeds is empty: give at least one"),
        ({"seeds": (1, 0, 1)}, "seeds names 1 twice"),
        ({"methods": ("cmid?byol.hidden=4",)}, "sets byol.hidden, a number of byol that cmid does not read"),
        ({"methods": ("byol?momentumm=0.9",)}, r"Unknown setting 'momentumm' .* Did you mean byol.momentum\b"),
        ({"methods": ("byol?momentum=0.9&byol.momentum=0.99",)}, "sets byol.momentum twice"),
    ],
)
def test_rows_that_would_be_others_than_they_say_are_refused(settings, says):
    with pytest.raises(UsageError, match=says):
        plan_rows(prepare("compare", {"data": "a", "labelled": "b", "methods": ("byol",)} | settings))


def test_cells_of_earlier_versions_stay_good():
    """A new setting belongs among `CAME_LATER`, a new default asks for a new number here."""
    assert key_of(PretrainConfig(), "images") == "c9f4583c"
    assert key_of(PretrainConfig(views=ViewConfig(turn=1.0)), "images") != "c9f4583c"


def test_which_images_a_limit_leaves_is_no_matter_of_the_other_seeds(tmp_path):
    data = folders(tmp_path)
    config = prepare("compare", {"data": data[1], "labelled": data[0], "methods": ("supervised?limit=6",)})
    config = replace(config, pretrain=replace(config.pretrain, batch_size=2))
    [row] = plan_rows(config)
    found = [Images(FolderSource(data[0]), seeds).of(row) for seeds in ((0,), (0, 1, 2))]
    assert found[0] == found[1] and found[0].row.config.seed == 0


def test_what_a_row_learns_from_is_counted_and_known_by_itself(tmp_path):
    data, folder = folders(tmp_path), tmp_path / "listed"
    (folder / "img").mkdir(parents=True)
    files = sorted(Path(data[1]).rglob("*.png"))
    for path in files:
        shutil.copy(path, folder / "img")

    def learned(train):
        for name, side in (("train", train), ("test", 1 - train)):
            lines = [f"{p.name} {int(p.parent.name == 'class1')}\n" for i, p in enumerate(files) if i % 2 == side]
            (folder / f"{name}.txt").write_text("".join(lines))
        given = {"data": str(folder), "labelled": data[1], "methods": ("byol", "supervised", "byol?limit=6")}
        config = prepare("compare", given | {"pretrain.batch_size": 4})
        images = Images(FolderSource(data[0]), (0,))
        return [images.of(row) for row in plan_rows(config)]

    (all_of, half, few), (again, other, _) = learned(0), learned(1)
    assert [each.count for each in (all_of, half, few)] == [16, 8, 6]
    assert all_of.images == again.images
    assert half.images != other.images, "the same labels in the same order, of other images"
