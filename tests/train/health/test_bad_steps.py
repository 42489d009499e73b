"""A bad step is left out alike on every topology; several in a row send the run back, without their samples."""

import json
import re

import pytest
import torch
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

from megarc.train.checkpoint import latest
from megarc.train.health import Running, Statistics

STEPS = 8
# name, ranks, ZeRO stage, other keys: the fault is on the last rank.
LAYOUTS = {
    "one-z0": (1, 0, {}),
    "one-z1": (1, 1, {}),
    "one-z3": (1, 3, {}),
    "dp2-z0": (2, 0, {}),
    "dp2-z1": (2, 1, {}),
    "dp2-z2": (2, 2, {}),
    "dp2-z3": (2, 3, {}),
    "dp2-z2-bf16": (2, 2, {"precision": "bf16"}),
    "dp2-z1-offload": (2, 1, {"parallel__offload": "optimizer"}),
    "tp2-z1": (2, 1, {"parallel__tensor": 2, "parallel__sequence": True}),
    "pp2-z1": (2, 1, {"parallel__pipeline": 2}),
    "pp2-z1-bf16": (2, 1, {"parallel__pipeline": 2, "precision": "bf16"}),
}


def job(folder, name, faults, steps=STEPS, **changes):
    ranks, zero, layout = LAYOUTS[name]
    at = "pipeline" if "pp2" in name else "backward"
    tree = pretrain(folder, zero, steps, **{"checkpoint__every": "2 steps", **layout, **changes})
    tree["faults"] = [{"at": at, "rank": ranks - 1, **fault} for fault in faults]
    return {**tree, "samples": str(folder) + "-samples"}


def consumed(folder):
    """Of each step, the samples that were taken last, over all ranks."""
    steps = {}
    for file in sorted((folder.parent / f"{folder.name}-samples").glob("rank-*")):
        own = {}
        for line in file.read_text().splitlines():
            step, *samples = map(int, line.split())
            own[step] = samples
        for step, samples in own.items():
            steps.setdefault(step, set()).update(samples)
    return steps


def log_of(folder):
    return (folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    pools = {1: [], 2: []}
    for name, (ranks, *_) in LAYOUTS.items():
        faults = [{"do": "nan", "step": 3}, {"do": "nan gradient", "step": 5}]
        if "pp2" in name:  # a gradient's hook of the first stage: its rank
            faults[1]["rank"] = 0
        pools[ranks].append(job(folder / name, name, faults))
    three = [{"do": "nan", "step": step} for step in (5, 6, 7)]
    keys = {"health__bad_steps": 3, "checkpoint__keep": 1}
    pools[2].append(job(folder / "back", "dp2-z1", three, **keys))
    pools[1].append(job(folder / "back-one", "one-z0", three, **keys))
    # What the host hears of at step 8 alone, where a checkpoint is due too, after good steps.
    late = {"health__bad_steps": 2, "checkpoint__keep": 1, "checkpoint__every": "4 steps"}
    late |= {"validation__every": "100 steps", "logging__every": 100}
    two = [{"do": "nan", "step": step} for step in (5, 6)]
    pools[1].append(job(folder / "late", "one-z0", two, 10, **late))
    stop = job(folder / "stop", "dp2-z2", three, **keys, health__then="stop")
    pools[2].append({**stop, "may_fail": True})
    pools[2].append(job(folder / "stop", "dp2-z2", [], **keys))
    first = [{"do": "nan", "step": step} for step in (1, 2)]
    early = job(folder / "early", "dp2-z1", first, health__bad_steps=2)
    pools[2].append({**early, "may_fail": True})
    pools[1].append(job(folder / "clean", "one-z0", []))
    spike = job(folder / "spike", "dp2-z2", [{"do": "spike", "step": 24}], 26, health__spike=8.0)
    stopped = {"do": "signal", "at": "forward", "rank": 0, "step": 22}
    again = job(folder / "spike-stopped", "dp2-z2", [stopped], 26, health__spike=8.0)
    pools[2] += [spike, again, {**again, "faults": [{**spike["faults"][0]}]}]
    for world, jobs in pools.items():
        print(run_jobs(jobs, world, folder))
    return folder


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_step_is_left_out_on_all_ranks_alike(runs, name):
    skipped = metrics(runs / name, "train/skipped").tolist()
    assert skipped == [0, 0, 1, 1, 2, 2, 2, 2]
    standing = latest(runs / name / "checkpoints").standing
    assert (standing.step, standing.without_update, standing.updates) == (STEPS, 2, STEPS - 2)
    assert "step 3 is skipped, 1 in a row: the loss is nan" in log_of(runs / name)
    assert "step 5 is skipped, 1 in a row: the gradient's norm is" in log_of(runs / name)
    tolerance = 2e-2 if "bf16" in name else 1e-5
    one, other = (
        metrics(runs / "one-z0", "train/nats_per_token"),
        metrics(runs / name, "train/nats_per_token"),
    )
    assert len(one) == STEPS - 2
    assert torch.allclose(one, other, rtol=tolerance)
    if "bf16" not in name:
        there = full_state(runs / "one-z0")
        for part, values in full_state(runs / name).items():
            scale = values.abs().max().clamp_min(1e-8)
            assert ((values - there[part]).abs().max() / scale) < 2e-4, part


def test_the_rank_and_its_samples_are_named(runs):
    # Batch 8 on two data ranks: step 3 is samples 16..23, rank 1 has the second half.
    assert "samples 16..23 (not finite on rank 1: 20..23)" in log_of(runs / "dp2-z1")


@pytest.mark.parametrize("name", ["back", "back-one"])
def test_after_several_it_goes_back_and_leaves_their_samples_out(runs, name):
    assert "returns to step 4" in log_of(runs / name)
    standing = latest(runs / name / "checkpoints").standing
    assert standing.skipped == [[32, 56]] and standing.step == STEPS and standing.without_update == 0
    steps = consumed(runs / name)
    assert [sorted(steps[step]) for step in (4, 5, 8)] == [
        list(range(24, 32)),
        list(range(56, 64)),
        list(range(80, 88)),
    ]
    assert metrics(runs / name, "train/nats_per_token").isfinite().all()
    lines = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/skipped" in line] == list(range(1, STEPS + 1))


def test_what_is_heard_of_late_leaves_the_checkpoint_before_it(runs):
    assert "returns to step 4" in log_of(runs / "late")
    standing = latest(runs / "late" / "checkpoints").standing
    assert standing.skipped == [[32, 48]] and standing.step == 10 and standing.without_update == 0


def test_going_back_is_the_same_on_two_ranks(runs):
    assert torch.allclose(
        metrics(runs / "back", "train/nats_per_token"),
        metrics(runs / "back-one", "train/nats_per_token"),
        rtol=1e-5,
    )


def test_it_stops_with_a_report_and_nothing_bad_in_the_weights(runs):
    # After the report the same command without the fault went on, from step 4.
    assert "steps 5 to 7 (samples 32..55) were bad: the loss is nan" in log_of(runs / "stop")
    assert "resumes from step 4" in log_of(runs / "stop")
    assert torch.allclose(
        metrics(runs / "stop", "train/nats_per_token"),
        metrics(runs / "clean", "train/nats_per_token"),
        rtol=1e-5,
    )


def test_without_a_checkpoint_to_go_back_to_it_says_so(runs):
    state = json.loads((runs / "early" / "state.json").read_bytes())
    assert state["state"] == "failed" and "no checkpoint before them" in state["error"]


def test_a_spike_is_judged_by_the_losses_before():
    statistics = Statistics(Running(), torch.device("cpu"))
    good, bad = torch.tensor(False), torch.tensor(True)
    for number in range(200):
        assert statistics.limit(6) >= 10.0 or number >= 20
        statistics.add(torch.tensor(2.0 + 0.1 * (-1) ** number), good)
        statistics.add(torch.tensor((1e9, float("nan"))[number % 2]), bad)
    running = statistics.read()
    assert running.count == 200
    assert abs(running.mean - 2.0) < 0.01 and abs(running.variance**0.5 - 0.1) < 0.01
    assert 2.3 < statistics.limit(6) < 2.8


def test_a_spike_is_left_out_by_a_run_that_was_stopped_before_it_too(runs):
    """What it is judged by, the running mean and deviation, is part of the checkpoint."""
    for name in ("spike", "spike-stopped"):
        assert re.search("step 24 is skipped, 1 in a row: the loss .* is a spike", log_of(runs / name))
        assert metrics(runs / name, "train/skipped").tolist()[-3:] == [1, 1, 1]
    one, other = (latest(runs / name / "checkpoints").standing for name in ("spike", "spike-stopped"))
    assert one == other and one.losses["count"] == 25
