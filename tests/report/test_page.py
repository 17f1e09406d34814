import numpy as np
import pytest

from cmid.report.curves import knn_section, loss_section
from cmid.report.dense import colour_section
from cmid.report.feature_map import map_section
from cmid.report.neighbours import Thumb
from cmid.report.page import Absent, Header, render
from tests.report.chromium import BINARY, browser

HEADER = Header(
    "run <one>",
    facts=[("images", "1,000")],
    warnings=["3 images were <skipped>."],
    settings={
        "data": "</script><script>alert(1)</script>",
        "views": {"size": 96, "mean": (0.1, 0.2), "x": None},
    },
    skipped=[(f"<{i}>.png", "truncated") for i in range(60)],
)


def page():
    rng = np.random.default_rng(0)
    steps = np.arange(300.0)
    thumbs = [Thumb(rng.integers(0, 255, (24, 24, 3), np.uint8), f"{i}.png", f"kind {i % 3}") for i in range(30)]
    return render(
        HEADER,
        [
            loss_section({"step": steps, "total": 5 - steps / 100}, {"total": "Total"}, {"total": (5.0, "guessing")}),
            knn_section({}, {"knn_top1": "kNN"}),
            colour_section([("a", thumbs[0].image)], rng.normal(size=(1, 6, 4, 4)), 16),
            map_section(thumbs, rng.random((30, 2)), "pca"),
        ],
    )


def test_what_is_missing_is_said_and_has_no_section():
    html = page()
    assert 'id="knn"' not in html
    assert "knn.data" in html[html.index("Not shown") :]
    assert "Not shown" not in render(HEADER, [])
    assert "because &lt;so&gt;" in render(HEADER, [Absent("A", "because <so>")])


def test_the_header_tells_settings_and_skipped_files_escaped():
    html = page()
    assert "run &lt;one&gt;" in html
    assert "3 images were &lt;skipped&gt;." in html
    assert "&lt;49&gt;.png" in html
    assert "&lt;50&gt;.png" not in html
    assert "and 10 more in skipped.csv" in html
    assert "<script>alert" not in html
    assert "unset" in html


def test_the_page_is_the_same_each_time():
    assert page() == page()


@pytest.mark.skipif(
    BINARY is None, reason="no Chromium on this machine: install chromium to open the page in a browser"
)
def test_it_opens_in_a_browser_without_complaint_or_request(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page(), encoding="utf-8")
    with browser() as tab:
        for width, phone in ((1280, False), (390, True)):
            tab.open(path, width=width, phone=phone)
            assert tab.complaints() == []
            assert tab.requests() == [path.as_uri()]
            assert tab.value("document.documentElement.scrollWidth") == width
            assert tab.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        hover = "document.querySelector('.plot').dispatchEvent(new PointerEvent('pointermove', {clientX: 300}))"
        tab.value(hover)
        assert tab.value("document.querySelector('.tip').textContent").startswith("step ")
        assert tab.value("document.querySelector('.map').classList.contains('dots')")
        tab.value("document.querySelector('input[value=thumbs]').click()")
        assert not tab.value("document.querySelector('.map').classList.contains('dots')")
        tab.value("document.querySelector('.classes button').click()")
        assert tab.value("document.querySelectorAll('.chosen').length") == 10
        assert tab.complaints() == []


@pytest.mark.skipif(
    BINARY is None, reason="no Chromium on this machine: install chromium to open the page in a browser"
)
def test_the_browser_would_tell(tmp_path):
    path = tmp_path / "broken.html"
    path.write_text("<img src='http://127.0.0.1:9/x.png'><script>missing()</script>")
    with browser() as tab:
        tab.open(path)
        assert tab.complaints()
        assert len(tab.requests()) == 2
