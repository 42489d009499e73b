"""What a run survives: kill -9, damaged and half-written checkpoints, a disk that is full."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from support.ranks import WORKER, run_jobs
from support.runs import full_state, pretrain

from megarc.train.checkpoint import latest

STEPS = 60


def start(job, folder):
    """The job on one rank, left running."""
    listed = folder / "jobs.json"
    listed.write_text(json.dumps([job]))
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(listed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_jobs([pretrain(folder / "run", 1, STEPS, checkpoint__every="5 steps", checkpoint__keep=3)], 1, folder)
    return folder / "run"


@pytest.fixture
def copied(uninterrupted, tmp_path):
    """A copy of the finished run, to be spoilt, and its job with more steps to do."""
    shutil.copytree(uninterrupted, tmp_path / "run")
    return tmp_path / "run", pretrain(tmp_path / "run", 1, STEPS + 5, checkpoint__every="5 steps")


def test_killed_anywhere_it_goes_on_bit_for_bit(uninterrupted, tmp_path):
    job = pretrain(tmp_path / "run", 1, STEPS, checkpoint__every="5 steps", checkpoint__keep=3)
    checkpoints = tmp_path / "run" / "checkpoints"
    kills = 0
    for wanted in (1, 4):
        process = start(job, tmp_path)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            seen = sorted(checkpoints.glob("step-*"))
            if seen and int(seen[-1].name.split("-")[1]) >= 5 * wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait(60)
    assert kills == 2
    run_jobs([job], 1, tmp_path)
    for name, values in full_state(uninterrupted).items():
        assert torch.equal(values, full_state(tmp_path / "run")[name]), name
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/nats_per_token" in line] == list(range(1, STEPS + 1))
    assert len(list(checkpoints.glob("step-*"))) == 3
    assert json.loads((tmp_path / "run" / "state.json").read_text())["state"] == "finished"


def test_a_flipped_byte_is_named(copied):
    folder, job = copied
    newest = latest(folder / "checkpoints")
    victim = newest.folder / "rank-00000.safetensors"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    output = run_jobs([job], 1, folder.parent, expect_failure=True)
    assert f"{victim} is damaged" in output and "checkpoint before it" in output
    shutil.rmtree(newest.folder)
    assert "from step 55" in run_jobs([job], 1, folder.parent)


@pytest.mark.parametrize("spoil", ["no manifest", "half a manifest", "a truncated shard", "a missing shard"])
def test_what_is_not_whole_does_not_exist(copied, spoil):
    folder, _ = copied
    newest = latest(folder / "checkpoints").folder
    shard = newest / "rank-00000.safetensors"
    manifest = newest / "manifest.json"
    if spoil == "no manifest":
        manifest.unlink()
    elif spoil == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[: manifest.stat().st_size // 2])
    elif spoil == "a truncated shard":
        shard.write_bytes(shard.read_bytes()[:-100])
    else:
        shard.unlink()
    assert latest(folder / "checkpoints").standing.step == STEPS - 5


def test_another_model_is_refused_with_the_difference(copied):
    folder, job = copied
    (folder / "config.yaml").unlink()  # as if the folder had been put together by hand
    for leftover in ("environment.json", "metrics.jsonl", "state.json"):
        (folder / leftover).unlink()
    job["config"]["model"]["layers"] = 3
    output = run_jobs([job], 1, folder.parent, expect_failure=True)
    assert "config.yaml" in output


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(copied):
    """The file size limit stands for the full disk: a write fails in the middle of a file."""
    folder, job = copied
    limited = {"do": "limit file size", "bytes": 100_000}
    output = run_jobs([limited, job], 1, folder.parent, expect_failure=True)
    assert "could not be written" in output and "is whole and stays" in output
    assert latest(folder / "checkpoints").standing.step == STEPS
    assert json.loads((folder / "state.json").read_text())["state"] == "failed"
    assert "from step 60" in run_jobs([job], 1, folder.parent)
