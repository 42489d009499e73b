"""Damaged memory and slow ranks are named; the watch for them changes no number. Too little memory is told at once."""

import json
import re

import pytest
import torch
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

from megarc.train.health.replica_check import odd_ones
from megarc.train.health.stragglers import Times, slow, summary

STEPS = 6
THREE = {"batch__size": 6, "batch__micro": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    jobs = []

    def add(name, zero, faults=(), **changes):
        job = pretrain(folder / name, zero, STEPS, **THREE, **changes)
        jobs.append({**job, "faults": list(faults), "may_fail": bool(faults)})

    watching = {"health__replicas": "1 steps", "health__replay": "2 steps"}
    for zero in (0, 1, 2, 3):
        add(f"plain-z{zero}", zero, health__dry_step=False)
        add(f"watched-z{zero}", zero, **watching)
    for zero in (0, 1, 2):
        flip = {"do": "flip", "at": "observing", "step": 3, "rank": 1}
        add(f"flip-z{zero}", zero, [flip], health__replicas="1 steps", checkpoint__every="1 steps")
        wrong = {"do": "wrong gradient", "at": "forward", "step": 5, "rank": 2}
        add(f"wrong-z{zero}", zero, [wrong], health__replay="2 steps")
    for at in ("forward", "waiting for data"):
        lazy = {"do": "slow", "seconds": 0.05, "at": at, "rank": 2}
        add(f"slow-{at.split()[0]}", 1, [lazy])
    folder.joinpath("output").write_text(run_jobs(jobs, 3, folder))
    pair = {"health__replay": "2 steps"}
    jobs = [pretrain(folder / "plain-pp", 1, STEPS, parallel__pipeline=2)]
    jobs.append(pretrain(folder / "watched-pp", 1, STEPS, parallel__pipeline=2, **pair))
    run_jobs(jobs, 2, folder)
    return folder


def error_of(runs, name):
    return json.loads((runs / name / "state.json").read_bytes()).get("error", "")


@pytest.mark.parametrize("layout", ["z0", "z1", "z2", "z3", "pp"])
def test_the_watch_changes_nothing(runs, layout):
    plain, watched = runs / f"plain-{layout}", runs / f"watched-{layout}"
    assert error_of(runs, f"watched-{layout}") == ""
    assert torch.equal(metrics(plain, "train/nats_per_token"), metrics(watched, "train/nats_per_token"))
    there = full_state(plain)
    assert all(torch.equal(values, there[part]) for part, values in full_state(watched).items())


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_a_flipped_weight_is_found_and_its_rank_named(runs, zero):
    error = error_of(runs, f"flip-z{zero}")
    assert "differ after step 3" in error and "rank 1 (on " in error and "embedding.weight" in error
    assert "of step 2 or before" in error
    assert not (runs / f"flip-z{zero}" / "checkpoints" / "step-000000003").exists()


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_a_step_computed_twice_shows_a_wrong_gradient(runs, zero):
    error = error_of(runs, f"wrong-z{zero}")
    assert "step 5 was computed twice with different results on rank 2 (on " in error
    assert "rank 0" not in error and "rank 1" not in error


@pytest.mark.parametrize(("name", "what"), [("forward", "forward"), ("waiting", "waiting for data")])
def test_a_slow_rank_is_named(runs, name, what):
    log = (runs / f"slow-{name}" / "log.txt").read_text()
    assert f"times the median in '{what}'" in log
    assert all(line.split(" rank ")[1][0] == "2" for line in log.splitlines() if f"'{what}'" in line)
    assert (metrics(runs / f"slow-{name}", f"ranks/{what.replace(' ', '_')}_slowest_rank") == 2).all()


def test_odd_ones_are_those_that_differ_from_most():
    assert odd_ones([{"a": 1}, {"a": 1}, {"a": 2}]) == {"a": [2]}
    assert odd_ones([{"a": 1, "b": 3}, {"a": 2, "b": 3}]) == {"a": [0, 1]}
    assert odd_ones([{"a": 1}] * 4) == {}


def test_slow_is_beyond_the_factor_and_worth_a_word():
    def times(*forward):
        return [
            Times(rank, "h", {"waiting for data": 0.0, "forward": value}, 10.0)
            for rank, value in enumerate(forward)
        ]

    assert [(one.rank, round(one.factor, 1)) for one in slow(times(1, 1, 2.5, 1), 1.5)] == [(2, 2.5)]
    assert [one.rank for one in slow(times(1, 3), 1.5)] == [1]
    assert slow(times(1, 1, 1.4), 1.5) == []
    assert slow(times(0.01, 0.01, 0.1), 1.5) == []
    assert summary(times(1, 2, 3))["ranks/forward_slowest_rank"] == 2


def test_too_little_memory_is_told_before_the_first_step(tmp_path):
    job = pretrain(tmp_path / "run", 1, STEPS, batch__size=16384, batch__micro=16384)
    output = run_jobs([{"do": "limit memory", "bytes": 500 << 20}, job], 1, tmp_path, expect_failure=True)
    assert re.search(r"memory is not enough \(while \w+( \w+)?\): rank 0 of 1", output)
    assert "the table of weights" in output
    assert json.loads((tmp_path / "run" / "state.json").read_bytes())["state"] == "failed"
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
