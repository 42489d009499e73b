"""The batch as a function of samples: against walking step by step, in runs of any topology, resumed anywhere."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

from megarc.config import build
from megarc.errors import UserError
from megarc.train import Lengths, RunConfig, Timeline
from megarc.train.schedule.batch_schedule import BatchSchedule, Stage, doubling

STAGES = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 60)), max_size=4).map(
    lambda later: [Stage(0, 7), *(Stage(*one) for one in later)]
)


@given(STAGES, st.integers(0, 500))
def test_agrees_with_walking(stages, target):
    batches, sample = BatchSchedule(stages), 0
    for step in range(60):
        size = max(stages, key=lambda stage: (stage.sample <= sample, stage.sample, stage.size)).size
        assert (batches.samples_before(step), batches.size(step)) == (sample, size)
        assert batches.step_of(sample) == batches.step_of(sample + size - 1) == step
        sample += size
    steps = batches.steps_until(target)
    assert batches.samples_before(steps) >= target
    assert steps == 0 or batches.samples_before(steps - 1) < target


@given(STAGES, st.integers(0, 40), st.integers(0, 40))
def test_standing_anywhere_nothing_changes(stages, stop, more):
    whole = BatchSchedule(stages)
    again = whole.standing_at(stop, whole.samples_before(stop))
    for step in range(stop, stop + more):
        assert (again.size(step), again.samples_before(step)) == (
            whole.size(step),
            whole.samples_before(step),
        )
    with pytest.raises(ValueError, match="before step"):
        again.size(stop - 1)


def test_doubles_where_the_measured_batch_passes_twice_its_size():
    power = [(tokens, 10 * tokens**0.5) for tokens in (4, 100, 900)]  # 20, 100, 300
    stages = doubling(16, power)
    assert [stage.size for stage in stages] == [16, 32, 64, 128, 256]
    for stage in stages[1:]:
        assert stage.sample == pytest.approx((stage.size / 10) ** 2, abs=0.5)
    assert doubling(16, [(50, 31.9)]) == [Stage(0, 16)]
    assert doubling(16, [(50, 70)]) == [Stage(0, 16), Stage(50, 32), Stage(50, 64)]
    assert BatchSchedule(doubling(16, [(50, 70)])).size(4) == 64


def config(**tree):
    return build(RunConfig, {"length": "1024 samples", **tree}, "test")


def test_either_token_is_a_unit():
    window = {"recent": 24, "causal": 16, "stride": 8}
    sizes = [{"at": "2560 processed tokens", "size": 320}, {"at": "1024 predicted tokens", "size": 640}]
    batch = {"size": 160, "unit": "processed tokens", "stages": sizes}
    found = Lengths(config(window=window, batch=batch)).batches
    assert found.stages == [Stage(0, 4), Stage(64, 8), Stage(128, 16)]
    predicted = {"size": 32, "unit": "predicted tokens", "measured": [{"at": "80 samples", "batch": 64.0}]}
    assert Lengths(config(window=window, batch=predicted)).batches.stages == [Stage(0, 4), Stage(80, 8)]
    with pytest.raises(UserError, match="not a whole number of windows of 40; use 160 or 200"):
        config(window=window, batch={"size": 161, "unit": "processed tokens"})
    with pytest.raises(UserError, match="begins at tokens or samples"):
        config(batch={"stages": [{"at": "3 steps", "size": 4}]})
    with pytest.raises(UserError, match="give one of them"):
        config(batch={"stages": [{"at": "3 samples", "size": 4}], "measured": predicted["measured"]})


@pytest.mark.parametrize(("rule", "factor"), [("sqrt", 2.0), ("linear", 4.0), ("none", 1.0)])
def test_the_learning_rate_follows_by_the_chosen_rule(rule, factor):
    """Of a run with a stage of four times the size, and of one without, at the same sample."""
    schedule = {"kind": "cosine", "warmup": "64 samples"}
    plain = config(batch={"size": 16}, schedule=schedule)
    staged = config(
        batch={"size": 16, "rate": rule, "stages": [{"at": "256 samples", "size": 64}]}, schedule=schedule
    )
    timeline, before = Timeline.of(staged), Timeline.of(plain).learning_rate
    batches, rate = timeline.batches, timeline.learning_rate
    assert timeline.total == 16 + 12
    for step in range(28):
        sample = batches.samples_before(step)
        expected = before(sample // 16) * (factor if sample >= 256 else 1.0)
        assert rate(step) == pytest.approx(expected)


def test_intervals_count_samples_where_sizes_change():
    staged = config(batch={"size": 16, "stages": [{"at": "256 samples", "size": 128}]})
    lengths = Lengths(staged)
    every, batches = lengths.interval(config(length="0.25 of run").length), lengths.batches
    due = [
        step + 1
        for step in range(lengths.total)
        if every.due(step + 1, batches.samples_before(step), batches.samples_before(step + 1))
    ]
    assert [batches.samples_before(step) for step in due] == [256, 512, 768, 1024]


# ---- real runs: 8 samples a step, then 16, then 8 again

GROWS = {
    "batch__stages": [{"at": "24 samples", "size": 16}, {"at": "56 samples", "size": 8}],
}
MIXES = {1: ["z1", "z2", "z3", "offload"], 2: ["dp-z0", "dp-z1", "dp-z2", "dp-z3", "pp"]}


def job(folder, zero=1, length="88 samples", **changes):
    found = pretrain(folder, zero, 0, **changes)
    found["config"]["length"] = length
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    pools = {1: [job(folder / "one", 0, **GROWS)], 2: []}
    for world, names in MIXES.items():
        for name in names:
            zero = int(name[-1]) if name[-2] == "z" else 1
            changes = {"pp": {"parallel__pipeline": 2}, "offload": {"parallel__offload": "optimizer"}}
            pools[world].append(job(folder / name, zero, **GROWS, **changes.get(name, {})))
    fork = {"start_from": str(folder / "trunk")}
    pools[1] += [
        job(folder / "resumed", **GROWS, until="4 steps"),  # in the middle of 16
        job(folder / "resumed", **GROWS),
        job(folder / "trunk", **GROWS, until="4 steps"),
        job(folder / "fork", **GROWS, **fork),
        job(folder / "larger", length="100 samples", batch__size=20, **fork),
        job(folder / "larger", length="120 samples", batch__size=20, **fork),
    ]
    for world, jobs in pools.items():
        run_jobs(jobs, world, folder)
    return folder


@pytest.mark.parametrize("name", [name for names in MIXES.values() for name in names])
def test_stages_are_the_same_run_on_every_topology(runs, name):
    for number in ("train/nats_per_token", "train/gradient_norm", "train/learning_rate"):
        one, other = metrics(runs / "one", number), metrics(runs / name, number)
        assert len(one) == 3 + 2 + 4
        assert torch.allclose(one, other, rtol=1e-5), number


@pytest.mark.parametrize("name", ["resumed", "fork"])
def test_resumes_exactly_in_the_middle_of_a_stage(runs, name):
    whole = full_state(runs / "z1")
    for part, values in full_state(runs / name).items():
        assert torch.equal(values, whole[part]), part


def test_what_is_told_of_a_batch(runs):
    lines = [json.loads(line) for line in (runs / "one" / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "batch/samples" in line]
    assert [line["batch/samples"] for line in lines] == [8, 8, 8, 16, 16, 8, 8, 8, 8]
    assert [line["samples"] for line in lines] == [8, 16, 24, 40, 56, 64, 72, 80, 88]
    for line in lines:
        assert line["batch/predicted_tokens"] == 16 * line["batch/samples"]
        assert line["batch/processed_tokens"] == 40 * line["batch/samples"]


def test_a_fork_with_another_batch_goes_on_with_the_same_samples(runs):
    """From sample 40 on by 20: the steps' loss is what the trunk's samples cost, not others'."""
    lines = [json.loads(line) for line in (runs / "larger" / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "batch/samples" in line]
    assert [(line["step"], line["samples"]) for line in lines] == [(5, 60), (6, 80), (7, 100), (8, 120)]
