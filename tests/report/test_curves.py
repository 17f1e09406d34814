import numpy as np
import pytest

from cmid.report.curves import knn_section, last, loss_section, read_table
from cmid.report.page import Absent, Section


def test_a_table_has_gaps_and_a_torn_last_line(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss,knn\n1,2.5,\n2,2.0,40\n3,nan,x\n4,1.")
    table = read_table(path)
    np.testing.assert_array_equal(table["epoch"], [1, 2, 3])
    np.testing.assert_array_equal(table["loss"], [2.5, 2, np.nan])
    np.testing.assert_array_equal(table["knn"], [np.nan, 40, np.nan])
    assert last(table, ["knn_teacher", "knn"]) == 40
    assert last(table, ["other"]) is None


@pytest.mark.parametrize("text", [None, "", "step,loss\n"])
def test_a_table_without_rows_has_no_columns(tmp_path, text):
    path = tmp_path / "steps.csv"
    if text is not None:
        path.write_text(text)
    assert read_table(path) == {}


def test_sections_exist_only_where_there_are_numbers():
    steps = {"step": np.arange(3.0), "local": np.array([1.0, np.nan, 2]), "global": np.full(3, np.nan)}
    section = loss_section(steps, {"global": "Global", "local": "Local"}, {})
    assert isinstance(section, Section)
    assert "Local" in section.body
    assert "Global" not in section.body
    assert isinstance(loss_section({}, {"local": "Local"}, {}), Absent)
    missing = knn_section({"epoch": np.arange(3.0)}, {"knn_top1": "kNN"})
    assert isinstance(missing, Absent)
    assert "knn.data" in missing.reason
