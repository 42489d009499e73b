"""A branch from a trunk in a later stage of its batch takes the rate that the trunk has there."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from megarc.batchsize.branches import Decision, branch_jobs
from megarc.batchsize.config import StudyConfig
from megarc.batchsize.recommendation import choices
from megarc.config import build, to_dict
from megarc.train import Lengths, Timeline
from megarc.train.run_position import Standing

TREE = {
    "length": "4096 windows",
    "window": {"recent": 24, "causal": 16, "stride": 16},
    "data": {"train": [{"kind": "pointer_chase"}]},
    "batch": {"size": 8, "micro": 4, "stages": [{"at": "256 windows", "size": 32}]},
    "optimizer": {"lr": 3e-3},
    "schedule": {"kind": "constant", "warmup": "2 steps"},
    "tune": {"branches": {"length": "512 windows", "lines": 4, "multiples": [0.5, 1, 2]}},
}


WSD = {"kind": "wsd", "warmup": "2 steps", "decay": "0.1 of run", "final": 0.05}


def study_at(samples, schedule=None, **batch):
    """The study, and a checkpoint of its run at ``samples``."""
    keys = {"batch": {**TREE["batch"], **batch}, "schedule": schedule or TREE["schedule"]}
    study = build(StudyConfig, {**TREE, **keys}, "test")
    run = study.run()
    standing = Standing(Lengths(run).batches.step_of(samples), samples)
    manifest = {"files": [], "config": to_dict(run)}
    return study, run, SimpleNamespace(folder=Path("nowhere"), manifest=manifest, standing=standing)


@pytest.mark.parametrize("rule", ["sqrt", "linear", "none"])
@pytest.mark.parametrize("samples", [128, 512])
def test_the_branch_of_the_same_batch_takes_the_trunk_s_rate(rule, samples):
    study, run, checkpoint = study_at(samples, rate=rule)
    trunk = Timeline.of(run).learning_rate(checkpoint.standing.step)
    jobs = branch_jobs(checkpoint, study)
    assert jobs[1].config.batch.size == (8 if samples == 128 else 32)
    for multiple, job in jobs.items():
        timeline = Timeline.of(job.config, checkpoint.standing)
        rate = timeline.learning_rate(checkpoint.standing.step)
        assert rate == pytest.approx(trunk * math.sqrt(multiple))


def test_branches_of_a_wsd_run_decay_over_their_last_fifth():
    """From a whole step of the branch on, to the schedule's final share; until there at the trunk's rate."""
    study, run, checkpoint = study_at(512, schedule=WSD)
    begin, end = checkpoint.standing.samples, 1024
    high = Timeline.of(run).learning_rate(checkpoint.standing.step)
    for multiple, job in branch_jobs(checkpoint, study).items():
        timeline, size = Timeline.of(job.config, checkpoint.standing), job.config.batch.size
        falls = begin + (end - begin) * 4 // 5 // size * size
        steps = range(checkpoint.standing.step, timeline.last)
        assert timeline.batches.samples_before(timeline.last) == end
        for sample, step in ((timeline.batches.samples_before(step), step) for step in steps):
            share = 1 - (1 - WSD["final"]) * max(0, sample - falls) / (end - falls)
            assert timeline.learning_rate(step) == pytest.approx(high * math.sqrt(multiple) * share)
        assert sample > falls, "a step lies in the decay"


def test_the_answer_keeps_the_stages_before_the_branches():
    _, run, checkpoint = study_at(512)
    decision = Decision({1: 3.0, 2: 3.0}, 2, False, False, 64, checkpoint.standing.samples, 0.01)
    chosen = {choice.key: choice.value for choice in choices(run, None, 1, decision)}
    assert chosen["batch.stages"] == [
        {"at": "256 samples", "size": 32},
        {"at": "512 samples", "size": 64},
    ]
    assert "optimizer.lr" not in chosen and "batch.size" not in chosen
