"""The figures of a comparison's rows."""

import csv

import numpy as np

from cmid.commands import prepare
from cmid.commands.compare_tables import Line, figures_of, table_of, write_tables
from cmid.report.comparison import differences_section, table_section
from cmid.report.page import Absent


def test_an_external_row_is_compared_with_all_runs():
    right = {seed: {"kNN-5": np.full(4, share)} for seed, share in ((0, 0.5), (1, 1.0))}
    trained = Line("byol", "BYOL", "trained here", right, {})
    other = Line("file.pth", "file.pth", "external", {0: right[0]}, {})
    config = prepare("compare", {"data": "a", "labelled": "b"})
    assert figures_of([trained, other], "byol", config)["file.pth", "kNN-5"].difference.value == -25
    assert figures_of([trained, other], "file.pth", config)["byol", "kNN-5"].difference.value == 25


def line(label, *seeds, kind="trained here", rank=9.0, diverged=()):
    """A row whose runs are right in half of the images."""
    right = {seed: {"kNN-5": np.tile([0.0, 1.0], 4), "linear": np.ones(8)} for seed in seeds}
    reasons = dict.fromkeys(diverged, "The loss is not finite.")
    ranks = dict.fromkeys(seeds, rank)
    return Line(label, label.upper(), kind, right, ranks, diverged=reasons, backbone="resnet18")


def table(*lines, reference="byol"):
    return table_of(lines, reference, prepare("compare", {"data": "a", "labelled": "b", "labels": (1, 5)}), "3 epochs")


def test_the_page_says_of_its_figures_what_the_table_says(tmp_path):
    made = table(line("byol", 0), line("file.pth", 0, kind="external"))
    below = str(table_section(made.lines, made.figures, made.probes, made.notes).body)
    text = write_tables(tmp_path, made)[1].read_text()
    for said in ("Budget: 3 epochs.", "kNN-5: cosine, majority of 5", "External backbones (marked) were trained"):
        assert said in below and said in text
    differences = str(differences_section(made.lines, made.figures, made.probes, "byol").body)
    assert "FILE.PTH, resnet18 (external)" in differences and "| FILE.PTH, resnet18 (external) |" in text


def test_only_probes_on_few_labels_are_left_out_for_want_of_images():
    scored = [note for note in table(line("byol", 0)).notes if "Left out" in note]
    assert len(scored) == 2 and all("a class" in note.rpartition(": ")[2] for note in scored)
    assert not any("Left out" in note for note in table(line("byol", diverged=(0,))).notes)


def test_a_reference_without_figures_is_told_of(tmp_path):
    made = table(line("byol", diverged=(0,)), line("cmid", 0), line("swav", 0))
    section = differences_section(made.lines, made.figures, made.probes, "byol")
    assert isinstance(section, Absent) and "has no run that reached its end" in section.reason
    text = write_tables(tmp_path, made)[1].read_text()
    assert "No differences. BYOL, resnet18" in text and "--reference" in text and "--retry" in text
    assert "| difference to" not in text
    only = differences_section([line("byol", 0)], {}, (), "byol")
    assert isinstance(only, Absent) and only.reason == "There is only one row."
    others = table(line("byol", 0), line("cmid", diverged=(0,)))
    assert any("No row but BYOL" in note for note in others.notes)


def test_the_runs_that_a_difference_rests_on_are_told(tmp_path):
    made = table(
        line("byol", 0, 2, diverged=(1,)), line("cmid", 0, 1, 2), line("swav", 1), line("file", 0, kind="external")
    )
    sheet, page = write_tables(tmp_path, made)
    with sheet.open() as file:
        rows = {r["method"]: r for r in csv.DictReader(file) if (r["measure"], r["seed"]) == ("kNN-5", "all")}
    assert [rows[name]["difference_runs"] for name in ("byol", "cmid", "swav", "file")] == ["", "2", "1", "1"]
    text = page.read_text()
    assert "rests on the runs of seed 0, 2 alone, which both rows have: CMID, resnet18." in text
    assert "no seed in common: SWAV, resnet18." in text and "FILE, resnet18 (external)." not in text
    alike = table(line("byol", 0, 1), line("cmid", 0, 1))
    assert not any("difference rests" in note.lower() for note in alike.notes)


def test_collapsed_runs_are_told_of(tmp_path):
    made = table(line("byol", 0, rank=1.2), line("cmid", 0), line("random", 0, kind="not trained", rank=1.0))
    [warning] = made.warnings
    assert warning.startswith("BYOL, seed 0: collapsed, with an effective rank of 1.2.")
    assert warning in write_tables(tmp_path, made)[1].read_text()
