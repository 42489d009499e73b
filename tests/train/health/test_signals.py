"""A signal ends a run after its step, saved; the same command goes on as if nothing had been."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from support import processes
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

from megarc.config import build as build_config
from megarc.config import to_yaml
from megarc.train import RunConfig

STEPS = 8
ROOT = Path(__file__).resolve().parents[3]
SIGNALS = ["SIGTERM", "SIGINT", "SIGUSR1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """On two ranks, each signal to one of them in the middle of a step; then the same job again."""
    folder = tmp_path_factory.mktemp("signals")
    jobs = [pretrain(folder / "clean", 2, STEPS)]
    for number, name in enumerate(SIGNALS):
        job = pretrain(folder / name, 2, STEPS)
        fault = {"do": "signal", "name": name, "at": "forward", "step": 3 + number, "rank": number % 2}
        jobs += [{**job, "faults": [fault], "keep_state": str(folder / f"{name}.json")}, job]
    folder.joinpath("output").write_text(run_jobs(jobs, 2, folder))
    return folder


@pytest.mark.parametrize("name", SIGNALS)
def test_it_saves_and_goes_on_bit_for_bit(runs, name):
    state = json.loads((runs / f"{name}.json").read_bytes())
    assert state["state"] == "saved" and state["step"] == 3 + SIGNALS.index(name)
    assert [rank["process"] for rank in state["ranks"]] and len(state["ranks"]) == 2
    assert (runs / "output").read_text().count("Ending.SAVED") == 3
    assert json.loads((runs / name / "state.json").read_bytes())["state"] == "finished"
    assert torch.equal(
        metrics(runs / "clean", "train/nats_per_token"), metrics(runs / name, "train/nats_per_token")
    )
    there = full_state(runs / "clean")
    assert all(torch.equal(values, there[part]) for part, values in full_state(runs / name).items())


def test_the_script_exits_with_75_and_then_with_0(tmp_path):
    tree = pretrain(tmp_path / "run", 1, 4000)["config"]
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(build_config(RunConfig, tree, "test")))
    command = [sys.executable, str(ROOT / "launch" / "pretrain.py"), "--config", str(file)]
    process = processes.start(command, stdout=processes.DEVNULL, stderr=processes.PIPE, text=True)
    lines = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while not (lines.exists() and lines.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGUSR1)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 75, said
    state = json.loads((tmp_path / "run" / "state.json").read_bytes())
    assert state["state"] == "saved" and 0 < state["step"] < 4000
    saved = f"stopped and saved at step {state['step']} of 4000: {tmp_path}/run/checkpoints/step-"
    assert saved in said.splitlines()[-1] and said.endswith("the same command resumes from there\n")
    more = [f"length={state['step'] + 2} steps", "schedule.kind=constant"]
    again = processes.run([*command, *more], capture_output=True, text=True, timeout=100)
    assert again.returncode == 0, again.stderr
    assert f"resumes from step {state['step']}" in again.stderr
    assert f"finished at step {state['step'] + 2} of" in again.stderr.splitlines()[-1]
    assert json.loads((tmp_path / "run" / "state.json").read_bytes())["state"] == "finished"
