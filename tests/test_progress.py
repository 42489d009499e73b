import io
import sys

import pytest

from megarc.progress import Estimate, clock, describe_time_left, human, human_bytes, progress


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_lines_where_there_is_no_terminal(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with progress("packing", 10, unit="docs") as bar:
        bar.advance(4)
        bar.advance(6, loss=1.5)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("packing: 100 %") and "docs/s" in line and "loss 1.5" in line and "took" in line


def test_a_total_that_nobody_knows_has_no_share(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with progress("packing", None, unit="B") as bar:
        bar.advance(3_200_000)
    assert out.getvalue().startswith("packing: 3.2 MB, ") and "%" not in out.getvalue()


def test_quiet_says_nothing(capsys):
    with progress("packing", 10, quiet=True) as bar:
        bar.advance(10)
    assert capsys.readouterr().err == ""


def test_work_of_an_earlier_job_counts_in_the_share_and_not_in_the_rate():
    now = Clock()
    estimate = Estimate(total=1000, done=900, clock=now)
    assert (estimate.share, estimate.rate, estimate.left) == (0.9, None, None)
    assert describe_time_left(estimate) == "unknown"
    now.now += 10
    estimate.advance(5)  # half a unit a second, not ninety
    assert (estimate.rate, estimate.left) == (0.5, 190)


def test_the_rate_is_that_of_the_last_minute():
    now = Clock()
    estimate = Estimate(total=None, clock=now)
    for _ in range(1000):
        now.now += 1
        estimate.advance(100)
    for _ in range(100):
        now.now += 1
        estimate.advance(1)
    assert estimate.rate == pytest.approx(1)
    assert estimate.share is None and estimate.left is None


def test_steps_longer_than_the_window_still_have_a_rate():
    now = Clock()
    estimate = Estimate(total=100, clock=now)
    for _ in range(20):
        now.now += 300
        estimate.advance(1)
    assert estimate.rate == pytest.approx(1 / 300)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (999.7, "1k"), (1234567, "1.23M"), (4.1e9, "4.1B"), (2e15, "2P")],
)
def test_human(number, text):
    assert human(number) == text


@pytest.mark.parametrize(("number", "text"), [(12, "12 B"), (1_234_567, "1.23 MB"), (4.1e9, "4.1 GB")])
def test_human_bytes(number, text):
    assert human_bytes(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text
