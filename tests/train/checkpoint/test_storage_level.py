"""Which checkpoints stay: the newest, and for good the first at or beyond each multiple of an amount."""

import pytest

from megarc.config import build
from megarc.train import Lengths, RunConfig, Timeline
from megarc.train.checkpoint import Level
from megarc.train.checkpoint.layout import finished, readable, step_folder, step_of, write_manifest
from megarc.train.run_position import Standing

WINDOW = {"recent": 24, "causal": 16, "stride": 16}


def run_through(folder, level_of, **tree):
    """Saves and prunes as a run does; the steps saved, those that are left, and samples at each."""
    config = build(RunConfig, {"window": WINDOW, **tree}, "test")
    timeline = Timeline.of(config)
    level = level_of(timeline)
    saved = {}
    for step in range(1, timeline.total + 1):
        before, samples = (timeline.batches.samples_before(number) for number in (step - 1, step))
        if step == timeline.total or timeline.checkpoint.due(step, before, samples):
            place = step_folder(folder, step)
            place.mkdir(parents=True)
            write_manifest(place, [], Standing(step, samples), {"config": {}})
            saved[step] = samples
            level.prune()
    return config, saved, [step_of(place) for place in finished(folder)]


CASES = {
    "of the issue": {"batch": {"size": 3}, "length": "120 steps"},
    "a batch of 7": {"batch": {"size": 7}, "length": "60 steps"},
    "steps longer than the interval": {"batch": {"size": 50}, "length": "12 steps"},
    "stages": {"batch": {"size": 3, "stages": [{"at": "100 samples", "size": 11}]}, "length": "60 steps"},
    "no multiple": {"batch": {"size": 3}, "length": "100 steps", "keep_every": "1300 tokens"},
    "shares": {
        "batch": {"size": 8},
        "length": "70 steps",
        "every": "0.05 of run",
        "keep_every": "0.3 of run",
    },
    "steps": {"batch": {"size": 8}, "length": "60 steps", "every": "4 steps", "keep_every": "10 steps"},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("keep", [1, 3])
def test_milestones_are_amounts(tmp_path, name, keep):
    tree = {"every": "500 tokens", "keep_every": "1000 tokens", **CASES[name]}
    keys = {"every": tree.pop("every"), "keep_every": tree.pop("keep_every"), "keep": keep}
    config, saved, left = run_through(
        tmp_path,
        lambda timeline: Level(tmp_path, (0,), keep, timeline.kept_for_good),
        checkpoint=keys,
        **tree,
    )
    newest = sorted(saved)[-keep:]
    amount, total = config.checkpoint.keep_every, max(saved)
    if amount.unit == "steps":
        places, each = {step: step for step in saved}, amount.amount
    else:
        places = saved
        each = (
            amount.amount
            * (saved[total] if amount.unit == "run" else 1)
            / (16 if amount.unit == "tokens" else 1)
        )
    milestones = {
        next(step for step in sorted(saved) if places[step] >= number * each)
        for number in range(1, int(places[total] // each) + 1)
    }
    assert milestones
    assert set(left) == milestones | set(newest)


def test_times_between_saves_do_not_drift():
    """Each of 1B tokens in steps of 0.52M: after 20 of them still at 20B, and not at 20 times a step too many."""
    config = build(
        RunConfig,
        {"window": {"recent": 0, "causal": 1024}, "batch": {"size": 512}, "length": "40B tokens"},
        "test",
    )
    every = Lengths(config).interval(build(RunConfig, {"length": "1B tokens"}, "test").length)
    step = -(-20 * 10**9 // (512 * 1024))
    assert every.due(step, (step - 1) * 512, step * 512)


def test_later_checkpoints_of_before_a_step_back_do_not_crowd_out_the_new_ones(tmp_path):
    """Hosts' own disks may hold later steps that some rank could not use: the run goes on from an earlier one."""
    for step in (2, 3, 7, 8, 4):
        step_folder(tmp_path, step).mkdir()
        write_manifest(step_folder(tmp_path, step), [], Standing(step, step * 8), {"config": {}})
    Level(tmp_path, (0,), 2).prune(4)
    assert [step_of(place) for place in finished(tmp_path)] == [3, 4, 7, 8]


def test_steps_that_were_copied_stay(tmp_path):
    """A copy takes longer than the time between saves: what other hosts have of step 2 needs this host's step 2."""
    for step in (1, 2, 3, 4, 5):
        step_folder(tmp_path, step).mkdir()
        write_manifest(step_folder(tmp_path, step), [], Standing(step, step * 8), {"config": {}})
    Level(tmp_path, (0,), 2).prune(5, (2,))
    assert [step_of(place) for place in finished(tmp_path)] == [2, 4, 5]


def test_a_checkpoint_of_a_newer_megarc_is_neither_counted_nor_removed(tmp_path):
    for step in (1, 2, 3):
        step_folder(tmp_path, step).mkdir()
        write_manifest(step_folder(tmp_path, step), [], Standing(step, step * 8), {"config": {}})
    (step_folder(tmp_path, 1) / "manifest.json").write_text('{"format": 99}')
    Level(tmp_path, (0,), 1).prune(3)
    assert [step_of(place) for place in finished(tmp_path)] == [1, 3]
    assert [step_of(place) for place in readable(finished(tmp_path))] == [3]
