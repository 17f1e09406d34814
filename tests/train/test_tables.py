import csv
import resource
import signal

import pytest

from cmid.train.tables import Table


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_rows_and_columns_grow(tmp_path):
    table = Table(tmp_path / "t.csv")
    table.append({"step": 1, "loss": 0.1})
    table.append({"step": 2, "local": 3.0})
    table.append({"step": 3, "loss": 0.3, "local": None})
    expected = [
        {"step": "1", "loss": "0.1", "local": ""},
        {"step": "2", "loss": "", "local": "3"},
        {"step": "3", "loss": "0.3", "local": ""},
    ]
    assert read(table.path) == expected
    assert table.rows() == expected


def test_cut_back_and_continued_by_another_process(tmp_path):
    table = Table(tmp_path / "t.csv")
    for step in range(5):
        table.append({"step": step, "loss": step / 10})
    again = Table(tmp_path / "t.csv")
    again.keep(lambda row: int(row["step"]) <= 2)
    again.append({"step": 3, "loss": 9.0})
    assert [(r["step"], r["loss"]) for r in read(table.path)] == [("0", "0"), ("1", "0.1"), ("2", "0.2"), ("3", "9")]


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    table = Table(tmp_path / "t.csv")
    table.append({"step": 1, "loss": 0.125})
    table.append({"step": 2, "loss": 0.5})
    data = table.path.read_bytes()
    table.path.write_bytes(data[:-cut] if cut < 7 else data[:3])
    again = Table(table.path)
    again.append({"step": 2, "loss": 0.75})
    got = [(r["step"], r["loss"]) for r in read(table.path)]
    assert got == ([("1", "0.125"), ("2", "0.75")] if cut < 7 else [("2", "0.75")])


@pytest.mark.parametrize(
    ("damage", "kept", "lines"),
    [
        (lambda data: data.replace(b"0.25", b"0.\xff5"), ["0", "1", "3"], 1),
        (lambda data: data.replace(b"2,0.25", b"\0" * 6), ["0", "1", "3"], 1),
        (lambda data: data.replace(b"2,0.25", b"2,0.25,7"), ["0", "1", "3"], 1),
        (lambda data: data.replace(b"2,0.25", b",0.25"), ["0", "1", "3"], 1),
        (lambda data: data.replace(b"2,0.25", b"2"), ["0", "1", "3"], 1),
        (lambda data: data.replace(b"step", b"st\xffp"), [], 5),
        (lambda data: b"\0" * 40 + b"\n", [], 1),
    ],
)
def test_damaged_lines_are_left_out_and_kept_beside(tmp_path, damage, kept, lines):
    table = Table(tmp_path / "t.csv", needs=("step",))
    for step in range(4):
        table.append({"step": step, "loss": step / 8})
    damaged = damage(table.path.read_bytes())
    table.path.write_bytes(damaged)
    for attempt in range(2):  # the second time there is nothing left to tell
        told = []
        again = Table(table.path, told.append, needs=("step",))
        assert [row["step"] for row in again.rows()] == kept
        assert [f"{lines} damaged lines" in said and "t.csv.damaged" in said for said in told] == [True] * (not attempt)
    again.append({"step": 4, "loss": 0.5})
    assert [row["step"] for row in read(table.path)] == [*kept, "4"]
    assert (tmp_path / "t.csv.damaged").read_bytes() == damaged
    table.path.write_bytes(b"\xff\n")
    Table(table.path, told.append, needs=("step",))
    assert (tmp_path / "t.csv.damaged").read_bytes() == damaged and (tmp_path / "t.csv.damaged1").exists()


def test_a_damaged_name_of_a_column_that_is_not_needed_costs_no_rows(tmp_path):
    table = Table(tmp_path / "t.csv", needs=("step",))
    table.append({"step": 1, "loss": 0.5})
    table.path.write_bytes(table.path.read_bytes().replace(b"loss", b"lo\xffs"))
    assert [row["step"] for row in Table(table.path, needs=("step",)).rows()] == ["1"]


def test_rows_wait_where_the_disk_is_full(tmp_path):
    """The kernel's own limit on file sizes stands in for a full disk."""
    told = []
    table = Table(tmp_path / "t.csv", told.append)
    table.append({"step": 0, "loss": 0.5})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
        for step in range(1, 4):
            table.append({"step": step, "loss": 0.5})
        table.append({"step": 4, "loss": 0.5, "late": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(told) == 1
    assert "cannot write" in told[0]
    assert len(table.rows()) == 5
    table.append({"step": 5, "loss": 0.5})
    assert [r["step"] for r in read(table.path)] == [str(s) for s in range(6)]
    assert [r["late"] for r in read(table.path)] == ["", "", "", "", "1", ""]
