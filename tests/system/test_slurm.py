"""Real jobs on a real SLURM of two nodes, of which both are on this machine."""

import json
import sys
import time

import pytest
import torch
from support.runs import full_state
from support.scripts import PRETRAIN, ROOT, losses, python, state

from .slurm import absent

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(absent()), reason=absent()),
    pytest.mark.timeout(900),  # of a machine that is shared
]

TWO_BY_TWO = ["--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=1"]
SCRIPT = ROOT / "launch" / "job.sh"


@pytest.fixture
def start(slurm, tmp_path):
    """Submits job.sh from a folder that is not the repository; gives its number and what tells its log."""

    def job(*words, options=(), **environment):
        environment = {"MEGARC_PYTHON": sys.executable, **environment}
        options = [*TWO_BY_TWO, "--gpus-per-node=0", "--output", tmp_path / "log-%j", *options]
        number = slurm.submit(*options, SCRIPT, *words, cwd=tmp_path, **environment)
        return number, lambda: "\n".join(log.read_text() for log in tmp_path.glob("log-*"))

    return job


@pytest.fixture
def submit(slurm, start):
    """The same, and waits for the job's end; gives its state, exit code and log."""

    def job(*words, **more):
        number, log = start(*words, **more)
        return *slurm.wait(number), log()

    return job


CONFIG = ["--config", ROOT / "configs" / "runs" / "tiny.yaml"]


def test_sbatch_trains_what_one_process_trains(submit, keys, place, alone):
    state_, code, log = submit(
        *CONFIG, *keys, f"folder={place}/sbatch", "parallel.world=4", "parallel.zero=2"
    )
    assert (state_, code) == ("COMPLETED", "0:0"), log
    assert "4 ranks by slurm" in log and f"{place}/sbatch: finished at step 6 of 6" in log
    assert losses(place / "sbatch") == pytest.approx(losses(alone), rel=1e-5)
    assert len(list((place / "sbatch" / "ranks").glob("rank-*.log"))) == 4


# Rank 0 takes its time in every step, so that there is time to interrupt.
SLOW = json.dumps([{"do": "slow", "at": "forward", "rank": 0, "seconds": 0.3}])
TWENTY = ["length=20 steps", "checkpoint.every=100 steps"]


def test_usr1_saves_requeues_and_goes_on_to_the_same_weights(slurm, submit, start, keys, place):
    submit(*CONFIG, *keys, *TWENTY, f"folder={place}/whole", "parallel.zero=2")
    folder = place / "interrupted"
    number, log = start(*CONFIG, *keys, *TWENTY, f"folder={folder}", "parallel.zero=2", MEGARC_FAULTS=SLOW)
    until(lambda: steps_done(folder) >= 3)
    slurm.run("scancel", "--signal=USR1", number)
    assert slurm.wait(number) == ("COMPLETED", "0:0"), log()
    assert slurm.facts(number)["Restarts"] == "1"
    assert "stopped and saved" in log() and "resumes from step" in log() and "try 2" in log()
    assert state(folder) == "finished" and len(losses(folder)) == len(losses(place / "whole"))
    expected, found = full_state(place / "whole"), full_state(folder)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_scancel_saves_and_does_not_requeue(slurm, start, keys, place):
    folder = place / "cancelled"
    number, log = start(*CONFIG, *keys, *TWENTY, f"folder={folder}", MEGARC_FAULTS=SLOW)
    until(lambda: steps_done(folder) >= 2)
    slurm.run("scancel", number)
    assert slurm.wait(number)[0] == "CANCELLED", log()
    until(lambda: state(folder) == "saved")
    assert slurm.facts(number)["Restarts"] == "0"


def steps_done(folder):
    return len(losses(folder)) if (folder / "metrics.jsonl").exists() else 0


def until(ready, seconds=240):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.2)


def test_an_array_sweeps(submit, keys, place, tmp_path):
    sweep = tmp_path / "sweep.txt"
    sweep.write_text("".join(f"optimizer.lr={lr} folder={place}/sweep{lr}\n" for lr in ("1e-3", "2e-3")))
    options = ["--array=1-2", "--nodes=1", "--ntasks-per-node=1"]
    *_, log = submit(*CONFIG, *keys, options=options, MEGARC_SWEEP=str(sweep))
    first, second = (losses(place / f"sweep{lr}") for lr in ("1e-3", "2e-3"))
    assert first[0] == second[0] and first[-1] != second[-1], log
    assert [2 * rate for rate in rates(place / "sweep1e-3")] == pytest.approx(rates(place / "sweep2e-3")), log


def rates(folder):
    """The learning rate at each line of a run's training metrics."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [line["train/learning_rate"] for line in lines if "train/learning_rate" in line]
    assert found
    return found


def test_srun_checks_who_comes_and_how_fast(slurm):
    said = slurm.run("srun", *TWO_BY_TWO, sys.executable, *PRETRAIN, "--check", "parallel.tensor=2", cwd=ROOT)
    assert "4 ranks by slurm" in said and "(0, 1, 2, 3)" not in said
    # Two groups of two, of tensor and of data.
    timed = sorted(line.split()[:2] for line in said.splitlines() if line.startswith(("tensor ", "data ")))
    assert (
        timed
        == [["data", "all-reduce"]] * 2
        + [["data", "send"]] * 4
        + [["tensor", "all-reduce"]] * 2
        + [["tensor", "send"]] * 4
    ), said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["parallel.world=16"], "16 ranks are expected"),
        (["data.train=[{path: no/where}]"], "no/where"),
    ],
)
def test_a_mistake_ends_the_job_and_is_told_once(submit, keys, tmp_path, words, told):
    state_, code, log = submit(*CONFIG, *keys, f"folder={tmp_path}/run", *words)
    assert (state_, code) == ("FAILED", "2:0"), log
    assert sum(line.startswith("error:") and told in line for line in log.splitlines()) == 1, log
    assert "Traceback" not in log


def test_sbatch_itself_refuses_a_wrong_time_and_partition(slurm):
    assert "Invalid --time" in slurm.run("sbatch", "--time=soon", SCRIPT, check=False)
    assert "invalid partition" in slurm.run(
        "sbatch", "--partition=no", "--gpus-per-node=0", SCRIPT, check=False
    )


def test_two_nodes_pack_what_one_process_packs(slurm, place):
    pack = ["data_tools/preprocess.py", "--input", ROOT / "megarc", "--append-eod", "--drop-duplicates",
            "--tokenizer-model", f"{place}/tokenizer.model", "--workers", 2]  # fmt: skip
    python(*pack, "--output-prefix", place / "one")
    slurm.run("srun", "-N2", "-n2", sys.executable, *pack, "--output-prefix", place / "two", cwd=ROOT)
    for end in (".bin", ".idx"):
        assert (place / f"two{end}").read_bytes() == (place / f"one{end}").read_bytes()
    first, second = (json.loads((place / f"{name}.json").read_text()) for name in ("one", "two"))
    assert first == second


def test_state_is_told(place, alone):
    assert state(alone) == "finished"
    said = python(*PRETRAIN, "--fate", f"folder={alone}")
    assert "finished at step 6 of 6" in said
    assert "no run that has started" in python(*PRETRAIN, "--fate", "folder=no/run", code=2)
