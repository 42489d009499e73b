from itertools import pairwise

import pytest

from megarc.config import build
from megarc.errors import UserError
from megarc.train import RunConfig, Timeline


def rates(length="100 steps", **schedule):
    config = build(RunConfig, {"length": length, "optimizer": {"lr": 2.0}, "schedule": schedule}, "test")
    timeline = Timeline.of(config)
    return [timeline.learning_rate(step) for step in range(timeline.total)]


@pytest.mark.parametrize("kind", ["cosine", "wsd", "constant"])
def test_warms_up_linearly_to_the_peak_and_never_takes_a_step_at_zero(kind):
    values = rates(kind=kind, warmup="10 steps")
    assert values[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(values) == pytest.approx(2.0) and min(values) > 0


def test_cosine_falls_to_its_final_share():
    values = rates(kind="cosine", warmup="10 steps", final=0.1)
    assert all(later <= earlier for earlier, later in pairwise(values[9:]))
    assert values[55] == pytest.approx(2.0 * 0.55)
    assert values[-1] == pytest.approx(0.2, abs=0.002)


def test_wsd_stays_then_falls_linearly():
    values = rates(kind="wsd", warmup="10 steps", decay="0.2 of run", final=0.0)
    assert values[10:80] == pytest.approx([2.0] * 70)
    assert values[80:] == pytest.approx([2.0 * left / 20 for left in range(20, 0, -1)])


def test_durations_in_any_unit_mean_the_same_steps():
    # 16 samples a step, 512 predictions a sample, by default
    for length in ("100 steps", "1600 windows", f"{100 * 16 * 512} tokens"):
        assert len(rates(length)) == 100


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(
        UserError, match="warmup is 3200 samples, longer than the run's 1600; make it shorter"
    ):
        rates(warmup="200 steps")


@pytest.mark.parametrize(("warmup", "decay"), [("2 steps", "400 steps"), ("0.5 of run", "0.8 of run")])
def test_a_warmup_and_a_decay_that_overlap_are_refused(warmup, decay):
    with pytest.raises(UserError, match=r"together more than the run's 1600.*make one of them shorter"):
        rates(kind="wsd", warmup=warmup, decay=decay)
    assert len(rates(kind="wsd", warmup="20 steps", decay="0.8 of run")) == 100  # side by side they fit
