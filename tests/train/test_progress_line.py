import io

import pytest
from rich.console import Console

from cmid.train.progress_line import ProgressLine, Standing, as_clock


def standing(step):
    return Standing(step, 40, 1 + step // 10, 4, {"reconstruction": 0.51234, "total": 7.5}, 153.2, 0.031)


def test_plain_lines_come_now_and_then():
    clock = [100.0]
    out = io.StringIO()
    line = ProgressLine(Console(file=out, width=40, soft_wrap=True, highlight=False), lambda: clock[0])
    line.start(4)
    for step in range(5, 41):
        clock[0] += 2.0
        line.show(standing(step))
    line.say("knn_top1 [63]")
    line.close()
    lines = out.getvalue().splitlines()
    assert lines[0] == (
        "step 5/40  epoch 1/4  reconstruction 0.5123  total 7.5  153 images/s  waiting for data 3 %  1:10 left"
    )
    assert [text.split()[1] for text in lines] == ["5/40", "20/40", "35/40", "[63]", "40/40"]


def test_a_terminal_gets_a_bar():
    out = io.StringIO()
    line = ProgressLine(Console(file=out, width=160, force_terminal=True, color_system=None))
    line.start(0)
    for step in (1, 2, 40):
        line.show(standing(step))
    line.say("a line of its own")
    line.close()
    text = out.getvalue()
    assert "a line of its own" in text
    assert "40/40" in text.split("a line of its own")[1]
    assert "reconstruction 0.5123" in text
    assert "153 images/s" in text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3753, "1:02:33"), (360000, "100:00:00")])
def test_clock(seconds, text):
    assert as_clock(seconds) == text
