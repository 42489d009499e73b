"""A job of 2 to 4 nodes on a real SLURM: it goes on with as many as there are, and ends as on one process."""

import json
import re
import sys

import pytest
from support.scripts import PRETRAIN, ROOT, losses, python, state

from .slurm import Slurm, absent
from .test_slurm import SLOW, steps_done, until

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(absent()), reason=absent()),
    pytest.mark.timeout(900),  # of a machine that is shared
]

# Twelve samples are shared out by 2, 3 and 4 ranks in micro-batches of 1.
KEYS = [
    "length=24 steps",
    "batch.size=12",
    "batch.micro=1",
    "checkpoint.every=4 steps",
    "health.self_check=off",
]


@pytest.fixture(scope="module")
def slurm():
    """Its own, since a node gets lost."""
    with Slurm() as cluster:
        yield cluster


def test_a_job_goes_on_with_the_nodes_that_there_are(slurm, keys, place, tmp_path):
    """Two nodes at first; with a third one free, three after a requeue; two again after that one is lost."""
    python(*PRETRAIN, *keys, *KEYS, f"folder={place}/twelve")
    slurm.run("scontrol", "update", "nodename=n3,n4", "state=drain", "reason=others")
    folder = place / "elastic"
    options = ["--nodes=2-4", "--gpus-per-node=0", "--output", tmp_path / "log"]
    words = ["--config", "configs/runs/tiny.yaml", *keys, *KEYS, f"folder={folder}"]
    job = slurm.submit(*options, ROOT / "launch" / "elastic.sh", *words,
                       MEGARC_PYTHON=sys.executable, MEGARC_FAULTS=SLOW, OMP_NUM_THREADS="1")  # fmt: skip
    until(lambda: steps_done(folder) >= 2)
    slurm.run("scontrol", "update", "nodename=n3", "state=resume")
    # else two are given again
    until(lambda: slurm.run("sinfo", "--noheader", "--nodes=n3", "--format=%T") == "idle")
    slurm.run("scancel", "--signal=USR1", job)
    until(lambda: slurm.facts(job)["NodeList"] == "n[1-3]" and ranks_of(folder) == 3)
    stands = steps_done(folder)
    until(lambda: steps_done(folder) >= max(stands + 2, 9))
    slurm.lose_node("n3")
    ended = slurm.wait(job)
    log = (tmp_path / "log").read_text()
    assert ended == ("COMPLETED", "0:0"), log
    assert slurm.facts(job)["Restarts"] == "2" and state(folder) == "finished"
    assert re.findall(r"(\d) ranks by slurm", log) == ["2", "3", "2"], log
    assert losses(folder) == pytest.approx(losses(place / "twelve"), rel=1e-5)


def ranks_of(folder):
    return len(json.loads((folder / "state.json").read_bytes())["ranks"])


def test_a_fixed_number_of_tasks_is_refused(slurm, tmp_path):
    words = ["--nodes=2-4", "--gpus-per-node=0", "--ntasks-per-node=1", "--output", tmp_path / "log"]
    job = slurm.submit(*words, ROOT / "launch" / "elastic.sh", "--config", "configs/runs/tiny.yaml")
    assert slurm.wait(job) == ("FAILED", "2:0")
    assert "leave them out, and say MEGARC_RANKS_PER_NODE=8" in (tmp_path / "log").read_text()
