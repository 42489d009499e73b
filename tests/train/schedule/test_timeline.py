"""What a run's timeline says, from the start and from a checkpoint of a run with other steps."""

import dataclasses

import pytest

from megarc.config import build
from megarc.errors import UserError
from megarc.train import Lengths, RunConfig, Timeline
from megarc.train.run_position import Standing
from megarc.train.schedule.batch_schedule import Interval

KEYS = {
    "length": "400 samples",
    "window": {"recent": 24, "causal": 16, "stride": 8},
    "batch": {"size": 8},
    "checkpoint": {"every": "0.5 of run", "keep_every": "10 steps"},
    "validation": {"every": "80 samples"},
}


def timeline(step=0, samples=0, **tree):
    return Timeline.of(build(RunConfig, {**KEYS, **tree}, "test"), Standing(step, samples))


def test_everything_in_steps_where_their_size_stays():
    one = timeline(until="100 samples", health={"replay": "640 tokens"})
    assert (one.total, one.last, one.samples) == (50, 13, 104)
    assert (one.checkpoint, one.kept_for_good, one.replay) == (
        Interval(steps=25),
        Interval(steps=10),
        Interval(steps=10),
    )
    assert (one.heldout, one.local_checkpoint, one.replicas) == (None, None, None)
    assert (one.predicted_tokens(104), one.processed_tokens(104)) == (832, 4160)


def test_in_samples_where_sizes_change():
    one = timeline(batch={"size": 8, "stages": [{"at": "80 samples", "size": 32}]})
    assert (one.total, one.checkpoint) == (10 + 10, Interval(samples=200))


def test_only_what_was_asked_for_makes_the_host_wait():
    data = {"train": [{"kind": "pointer_chase"}], "valid": [{"kind": "pointer_chase"}]}
    assert timeline().settling == [Interval(steps=10), Interval(steps=25)]
    one = timeline(data=data, checkpoint={"local": "/local", "local_every": "5 steps"})
    assert one.settling == [Interval(steps=10), Interval(steps=10), Interval(samples=100), Interval(steps=5)]


def test_standing_on_another_run_s_steps():
    """Ten steps of 20 samples are behind it: the length in samples stays, steps and rates follow from there."""
    here, whole = timeline(10, 200), timeline()
    assert (here.total, here.samples, here.batches.samples_before(11)) == (10 + 25, 400, 208)
    assert here.learning_rate(10) == whole.learning_rate(25)
    assert here.checkpoint == whole.checkpoint


def test_it_is_frozen_and_says_what_is_wrong():
    with pytest.raises(dataclasses.FrozenInstanceError):
        timeline().total = 3
    with pytest.raises(UserError, match="cannot say how long the run is"):
        timeline(length="0.5 of run")
    with pytest.raises(UserError, match="longer than the run"):
        timeline(schedule={"warmup": "401 samples"})


def test_lengths_are_samples_of_whole_steps():
    lengths = Lengths(build(RunConfig, KEYS, "test"))
    for text, samples in {"100 samples": 104, "13 steps": 104, "0.25 of run": 104, "801 tokens": 104}.items():
        amount = build(RunConfig, {**KEYS, "length": text}, "test").length
        assert lengths.in_samples(amount) == samples, text


@pytest.mark.parametrize("length", ["10 steps", "80 samples", "640 tokens"])
def test_a_run_beyond_its_length_is_over(length):
    """``length`` and ``until`` may be made shorter at any resume; the steps that were taken stay."""
    here = timeline(20, 160, length=length)
    assert (here.total, here.last, here.samples) == (20, 20, 160)
    here = timeline(20, 160, until=length)
    assert (here.total, here.last, here.samples) == (50, 20, 160)


def test_intervals_in_tokens_are_counted_by_each_stages_window():
    """Every 640 tokens: steps of 400, four of them, then of 80. The first window alone would say each second step."""
    stages = [
        {"at": "0 steps", "recent": 0, "causal": 40},
        {"at": "4 steps", "recent": 24, "causal": 16, "stride": 8},
    ]
    one = timeline(
        window={"stages": stages}, length="24 steps", validation={"every": "640 tokens"}, batch={"size": 10},
        data={"valid": [{"kind": "pointer_chase"}]}, checkpoint={},
    )  # fmt: skip
    due, tokens = [], 0
    for step in range(1, 25):
        samples = one.batches.samples_before(step)
        before, tokens = tokens, one.predicted_tokens(samples)
        if one.heldout.due(step, one.batches.samples_before(step - 1), samples):
            due.append(step)
            assert tokens // 640 > before // 640
    assert due == [2, 4, 8, 16, 24]
