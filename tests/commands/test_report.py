import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cmid.backbones import create_backbone
from cmid.commands.learners import build_learner
from cmid.commands.looking import Looker, choose
from cmid.commands.report import report
from cmid.config import (
    CMIDConfig,
    KnnConfig,
    OptimizerConfig,
    PretrainConfig,
    ReportConfig,
    TrainConfig,
    ViewConfig,
    as_plain,
)
from cmid.contracts import Learner, Views
from cmid.data.augment import BatchAugment
from cmid.data.folder import FolderSource
from cmid.data.labelled import LabelledFolder
from cmid.data.views import ViewLoader
from cmid.errors import UsageError
from cmid.train import RunDirectory, fit
from tests.report.chromium import BINARY, browser

SECTIONS = ("losses", "pace", "reconstructions", "matches", "neighbours", "dense", "correspondences", "map")


def draw_images(folder, count, seed):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        small = rng.integers(0, 255, (6, 7, 3), np.uint8)
        Image.fromarray(small).resize((84, 72), Image.Resampling.BICUBIC).save(folder / f"{i}.png")


class Numbers:
    """A probe that measured this."""

    name, every_epochs = "numbers", 1

    def __init__(self, **numbers):
        self.numbers = numbers

    def __call__(self, learner, device):
        return self.numbers


def settings_of(folder):
    heads = {"global_hidden": 16, "global_dim": 8, "local_hidden": 16, "local_bottleneck": 8, "local_prototypes": 16}
    return PretrainConfig(
        data=str(folder / "images"),
        out=str(folder / "run"),
        backbone="resnet10t",
        epochs=2,
        batch_size=4,
        views=ViewConfig(size=64, scale=(0.6, 1.0)),
        cmid=CMIDConfig(queue_size=16, local_matches=3, **heads),
        optimizer=OptimizerConfig(name="adamw", betas=(0.9, 0.99), lr=1e-4, warmup_epochs=0),
        train=TrainConfig(precision="32", workers=0, log_every=1, accelerator="cpu"),
        knn=KnnConfig(data=str(folder / "labelled")),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps on eight images, as the trainer writes it."""
    folder = tmp_path_factory.mktemp("trained")
    draw_images(folder / "images", 8, 0)
    for i, name in enumerate(("port", "<road>", "wood")):
        draw_images(folder / "labelled" / name, 3, i + 1)
    (folder / "images" / "8 <b>.png").write_bytes(b"no image")
    settings = settings_of(folder)
    source = FolderSource(settings.data)
    torch.manual_seed(0)
    fit(
        build_learner(settings),
        ViewLoader(source, settings.views, batch_size=4, seed=0, workers=0, max_bad_share=0.5),
        prepare=BatchAugment(settings.views),
        run=RunDirectory(settings.out),
        epochs=settings.epochs,
        seed=0,
        optimizer=settings.optimizer,
        train=settings.train,
        images_per_batch=4,
        settings=as_plain(settings),
        probes=[Numbers(knn_top1=61.25, feature_std=0.02, effective_rank=5.5)],
    )
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run that a test may change; its images stay where they are."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def drawn(run, **asked):
    path = report(ReportConfig(run=str(run), **{"images": 3, "map_images": 9, "projection": "pca", **asked}))
    return path.read_text(encoding="utf-8")


def sections(html):
    return re.findall(r'<section id="(\w+)">', html)


def not_shown(html):
    return html[html.index('<section id="absent">') :]


def test_a_whole_run_has_every_section(run):
    html = drawn(run)
    assert sorted(sections(html)) == sorted((*SECTIONS, "knn", "spread"))
    for fact in ("CMID, exact", "resnet10t", "2 of 2", "4 of 4", "61.2 %", "64 px, batch 4"):
        assert f">{fact}</dd>" in html
    for title in ("Total", "Reconstruction", "Global", "Local", "Images a second", "Learning rate", "Effective rank"):
        assert f"<b>{title}</b>" in html
    assert "8 &lt;b&gt;.png" in html
    assert "1 of 9 images could not be read" in html
    assert "&lt;road&gt;" in html
    assert "<road>" not in html
    assert len(html) < 6e6


def test_the_same_run_gives_the_same_page(run):
    torch.manual_seed(1)
    once, after = drawn(run), torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after  # and the caller's own draws are left alone
    torch.manual_seed(2)
    assert drawn(run) == once


def test_moved_images_are_named_and_the_rest_is_shown(run):
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["data"] = settings["knn"]["data"] = "/gone/away"
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    html = drawn(run)
    assert sections(html)[:4] == ["losses", "pace", "knn", "spread"]
    assert "reconstructions" not in sections(html)
    assert "no such folder or list file: /gone/away" in html
    assert "--data" in not_shown(html)


def test_images_asked_for_stand_in_for_the_runs_own(run, tmp_path):
    draw_images(tmp_path / "others", 4, 9)
    html = drawn(run, data=str(tmp_path / "others"))
    assert "others/0.png" in html
    assert "images/0.png" not in html


@pytest.mark.parametrize("name", ["data", "labelled"])
def test_images_asked_for_must_be_there(run, name):
    with pytest.raises(UsageError, match="nowhere"):
        drawn(run, **{name: "/nowhere"})


def test_a_setting_that_is_no_longer_known_is_named_and_the_page_is_whole(run):
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["cmid"]["sharpness"] = 3.0
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    html = drawn(run)
    assert "cmid.sharpness" in html
    assert "reconstructions" in sections(html)


def test_an_empty_settings_file_is_no_run_of_the_defaults(run):
    whole = drawn(run)
    (run / "settings.yaml").write_text("")
    html = drawn(run)
    assert "settings.yaml is empty: the settings are those in last.ckpt" in html
    assert sections(html) == sections(whole)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UsageError, match=r"neither settings\.yaml nor checkpoints"):
        drawn(run)


def test_without_a_checkpoint_there_are_still_curves(run):
    shutil.rmtree(run / "checkpoints")
    html = drawn(run)
    assert sections(html)[:4] == ["losses", "pace", "knn", "spread"]
    assert "last.ckpt" in html


def test_without_labels_there_is_no_knn_and_the_map_has_no_classes(run):
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["knn"]["data"] = None
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    place = lines[0].index("knn_top1")
    (run / "metrics.csv").write_text("".join(",".join(x[:place] + x[place + 1 :]) + "\n" for x in lines))
    html = drawn(run)
    assert sorted(sections(html)) == sorted((*SECTIONS, "spread", "absent"))
    assert "knn.data" in not_shown(html)
    assert 'class="classes"' not in html


def test_collapse_and_a_broken_loss_are_said_first(run):
    lines = (run / "metrics.csv").read_text().splitlines()
    place = lines[0].split(",").index("feature_std")
    cells = lines[-1].split(",")
    cells[place] = "0.00001"
    (run / "metrics.csv").write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    (run / "nonfinite.json").write_text('{"step": 7, "epoch": 2}')
    html = drawn(run)
    assert "Features are collapsing" in html
    assert "not finite: step 7, epoch 2" in html


@pytest.mark.parametrize("path", ["", "/nowhere/at/all"])
def test_no_run_no_report(path):
    with pytest.raises(UsageError, match="folder of a run"):
        report(ReportConfig(run=path))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"neither settings\.yaml nor checkpoints"):
        report(ReportConfig(run=str(tmp_path)))


@pytest.mark.parametrize("asked", [{"images": 0}, {"map_images": 1}])
def test_too_few_images_are_refused(run, asked):
    with pytest.raises(UsageError, match="at least"):
        drawn(run, **asked)


def test_the_page_goes_where_it_is_asked(run, tmp_path):
    assert report(ReportConfig(run=str(run), images=1, map_images=2, out=str(tmp_path / "a" / "b.html"))).is_file()
    assert not (run / "report.html").exists()


def test_a_page_replaces_no_file_of_another(run):
    last = run / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    with pytest.raises(UsageError, match=r"last\.ckpt exists.*--overwrite"):
        drawn(run, out=str(last))
    assert last.read_bytes() == before


class Still(Learner):
    """A method that has nothing to look at but its backbone."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, batch):
        return {}


def looker_on(trained, learner=None):
    settings = settings_of(trained)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = learner or build_learner(settings)
    album = choose(FolderSource(settings.data), 6, 0, settings.views.size)
    return Looker(learner, settings, torch.device("cpu")), album


def test_a_method_without_pictures_says_so(trained):
    whole, album = looker_on(trained)
    looker, _ = looker_on(trained, Still(whole.backbone))
    made = looker.view_sections(album, 2)
    assert [type(each).__name__ for each in made] == ["Absent", "Absent", "Section"]


def test_views_stand_in_the_albums_order(trained):
    looker, album = looker_on(trained)
    views = looker.views_of(album, 5)
    assert views.indices.tolist() == [0, 1, 2, 3, 4]
    assert views[0].images.shape == (5, 3, 64, 64)


def test_unreadable_images_are_left_out_and_labels_stay_with_theirs(trained):
    album = choose(FolderSource(trained / "images"), 9, 0, 32)
    assert sorted(thumb.name for thumb in album.thumbs) == [f"images/{i}.png" for i in range(8)]
    labelled = choose(LabelledFolder(trained / "labelled").all(), 9, 0, 32)
    assert all(thumb.name.startswith(f"{thumb.label}/") for thumb in labelled.thumbs)


def test_a_backbone_of_one_size_is_looked_at_in_that(trained):
    looker, album = looker_on(trained, Still(create_backbone("hiera_tiny_224", img_size=64, mask_stage=None)))
    assert looker.backbone.fixed_size == (64, 64)
    made = [*looker.view_sections(album, 2), looker.dense_section(album, 2)]
    assert [type(each).__name__ for each in made][2:] == ["Section", "Section"]


def test_shown_crops_have_the_colours_of_the_file(trained, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for name, colour in (("a", (200, 30, 90)), ("b", (17, 130, 240))):
        Image.new("RGB", (80, 80), colour).save(folder / f"{name}.png")
    looker, _ = looker_on(trained)
    album = choose(FolderSource(folder), 2, 0, 64)
    shown = looker._drawn(looker.views_of(album, 2)[0].images)
    for i, thumb in enumerate(album.thumbs):
        colour = (200, 30, 90) if thumb.name.endswith("a.png") else (17, 130, 240)
        assert (shown[i] == np.array(colour)).all()
        assert (thumb.image == np.array(colour)).all()


def test_a_page_is_not_replaced_by_one_without_images(run, tmp_path, capsys):
    page, settings = run / "report.html", yaml.safe_load((run / "settings.yaml").read_text())
    page.write_text("as it was")
    (run / "settings.yaml").write_text(yaml.safe_dump(settings | {"data": str(tmp_path / "moved")}))
    with pytest.raises(UsageError, match="is kept, since a page without images would take its place: say where"):
        report(ReportConfig(run=str(run)))
    assert page.read_text() == "as it was"
    assert "note: The run's images cannot be shown" in " ".join(capsys.readouterr().err.split())
    assert "cannot be shown" in drawn(run, out=str(tmp_path / "other.html"))


def test_a_page_is_not_replaced_by_one_without_the_learner(run, tmp_path):
    page = report(ReportConfig(run=str(run), images=1, map_images=2)).read_bytes()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UsageError, match="a page without what the learner sees would take its place"):
        report(ReportConfig(run=str(run), images=1, map_images=2))
    assert (run / "report.html").read_bytes() == page
    assert report(ReportConfig(run=str(run), images=1, map_images=2, out=str(tmp_path / "other.html"))).is_file()


def test_labelled_images_of_other_bands_than_the_runs_are_refused(run, trained):
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["views"] |= {"mean": [0.5] * 4, "std": [0.2] * 4, "bands": list("abcd")}
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UsageError, match="4 bands"):
        drawn(run, labelled=str(trained / "labelled"), out=str(run / "other.html"))


def test_the_ring_marks_the_same_ground_also_in_mirrored_crops(trained):
    """Of two views of one crop, one mirrored, each point's true place is its mirror image."""
    looker, album = looker_on(trained)
    view = looker.views_of(album, 2)[0]
    flipped = replace(view, images=view.images.flip(3), flipped=~view.flipped)
    section = looker._correspondences(Views((view, flipped), torch.arange(2)), ["a", "b"])
    points = [float(x) for x in re.findall(r'class="number at c\d" style="left:([\d.]+)%', section.body)]
    rings = [float(x) for x in re.findall(r'class="ring" style="left:([\d.]+)%', section.body)]
    assert len(points) == len(rings) == 4
    np.testing.assert_allclose(np.array(points) + rings, 100, atol=0.11)


def test_the_ring_marks_the_same_ground_also_in_turned_crops(trained):
    """Of two views of one crop, one upside down, each point's true place is the opposite one."""
    looker, album = looker_on(trained)
    view = looker.views_of(album, 2)[0]
    halves = torch.full((2,), 2)
    turned = replace(view, images=view.images.rot90(2, (-2, -1)), turns=halves)
    section = looker._correspondences(Views((view, turned), torch.arange(2)), ["a", "b"])
    for side in ("left", "top"):
        where = rf"[^\"]*{side}:([\d.]+)%"
        points, rings = (
            np.array([float(x) for x in re.findall(rf'class="{kind}" style="{where}', section.body)])
            for kind in (r"number at c\d", "ring")
        )
        assert len(points) == len(rings) == 4
        np.testing.assert_allclose(points + rings, 100, atol=0.11)


@pytest.mark.skipif(
    BINARY is None, reason="no Chromium on this machine: install chromium to open the page in a browser"
)
def test_a_runs_page_opens_in_a_browser_without_complaint_or_request(run):
    drawn(run)
    path = run / "report.html"
    with browser() as tab:
        tab.open(path, width=390, phone=True)
        assert tab.complaints() == []
        assert tab.requests() == [path.as_uri()]
        assert tab.value("document.documentElement.scrollWidth") == 390
        assert tab.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert tab.value("document.querySelector('.classes button:nth-child(1)').textContent").strip() == "<road>"


def test_a_device_that_the_run_was_to_leave_alone_is_left_alone(run, monkeypatch):
    asked = []
    room = sys.modules["cmid.commands.report"]
    monkeypatch.setattr(room, "resolve_device", lambda name: asked.append(name) or torch.device("cpu"))
    drawn(run)
    assert asked == ["cpu"]
