"""Under SLURM: a signal saves, the job goes back to the queue, goes on by itself, and nothing of it shows."""

import json
import sys
import time

import pytest
import torch
from support.runs import full_state, metrics
from support.scripts import ROOT

from .slurm import Slurm, absent

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(absent()), reason=absent())]

STEPS = 40
# So that there is time to hit it: each step a little slower.
SLOW = json.dumps([{"do": "slow", "seconds": 0.1, "at": "forward", "rank": 0}])


@pytest.fixture(scope="module")
def slurm():
    with Slurm() as cluster:
        yield cluster


def submit(slurm, tmp_path, keys, name):
    options = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0"]
    words = ["--config", ROOT / "configs" / "runs" / "tiny.yaml", *keys, f"folder={tmp_path}/{name}"]
    words += [f"length={STEPS} steps", "parallel.zero=2", "checkpoint.every=25 steps"]
    environment = {"MEGARC_PYTHON": sys.executable, "MEGARC_FAULTS": SLOW}
    log = tmp_path / f"{name}.log"
    script = ROOT / "launch" / "job.sh"
    return slurm.submit(*options, "--output", log, script, *words, cwd=tmp_path, **environment), log


def test_signal_requeue_resume(slurm, keys, tmp_path):
    untouched, _ = submit(slurm, tmp_path, keys, "untouched")
    signalled, log = submit(slurm, tmp_path, keys, "signalled")
    lines = tmp_path / "signalled" / "metrics.jsonl"
    end = time.monotonic() + 120
    while not (lines.exists() and len(lines.read_bytes().splitlines()) >= 5):
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    slurm.run("scancel", "--signal=USR1", signalled)
    assert slurm.wait(untouched) == ("COMPLETED", "0:0")
    assert slurm.wait(signalled) == ("COMPLETED", "0:0"), log.read_text()
    said = log.read_text()
    assert "SIGUSR1: saves at step" in said or "a signal on another rank: saves at step" in said, said
    assert "the job goes back to the queue" in said and ", try 2, on" in said and "goes on from step" in said
    assert slurm.facts(signalled)["Restarts"] == "1"
    one, other = (metrics(tmp_path / name, "train/nats_per_token") for name in ("untouched", "signalled"))
    assert len(one) == STEPS and torch.equal(one, other)
    there = full_state(tmp_path / "untouched")
    assert all(
        torch.equal(values, there[part]) for part, values in full_state(tmp_path / "signalled").items()
    )
