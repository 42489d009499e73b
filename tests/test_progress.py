import io
import sys

import pytest

from megarc.progress import clock, human, progress


def test_lines_where_there_is_no_terminal(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with progress("packing", 10, unit="docs") as bar:
        bar.advance(4)
        bar.advance(6, loss=1.5)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("packing: 100 %") and "docs/s" in line and "loss 1.5" in line and "took" in line


def test_quiet_says_nothing(capsys):
    with progress("packing", 10, quiet=True) as bar:
        bar.advance(10)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (999, "999"), (1234567, "1.23M"), (2e15, "2P")])
def test_human(number, text):
    assert human(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text
