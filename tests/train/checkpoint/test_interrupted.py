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

from megarc.errors import UserError
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


@pytest.mark.parametrize("kept", [0, 0.5])
def test_an_unfinished_save_does_not_exist(copied, kept):
    folder, _ = copied
    manifest = latest(folder / "checkpoints").folder / "manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    if kept:
        manifest.write_bytes(content[: int(len(content) * kept)])
    assert latest(folder / "checkpoints").standing.step == STEPS - 5


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "rank-00000.json"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_missing_or_truncated_shard_is_named(copied, name, missing):
    folder, _ = copied
    shard = latest(folder / "checkpoints").folder / name
    content = shard.read_bytes()
    shard.unlink()
    if not missing:
        shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"{name} should have {len(content)} bytes.*checkpoint before it"):
        latest(folder / "checkpoints")


def test_a_checkpoint_of_another_model_is_refused_with_the_difference(copied):
    folder, job = copied
    tree = {
        **job["config"],
        "folder": str(folder.parent / "other"),
        "model": {**job["config"]["model"], "layers": 3},
    }
    there = latest(folder / "checkpoints").folder
    resave = {"do": "resave", "config": tree, "from": str(there), "to": str(folder.parent / "x")}
    output = run_jobs([resave], 1, folder.parent, expect_failure=True)
    assert "is of another model" in output
    assert "blocks.2.attention.out.weight: absent there, [32, 32] here" in output


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(copied):
    """The file size limit stands for the full disk: a write fails in the middle of a file."""
    folder, job = copied
    limited = {"do": "limit file size", "bytes": 100_000}
    output = run_jobs([limited, job], 1, folder.parent, expect_failure=True)
    assert "could not be written" in output and "is whole and stays" in output
    assert latest(folder / "checkpoints").standing.step == STEPS
    assert json.loads((folder / "state.json").read_text())["state"] == "failed"
    assert "from step 60" in run_jobs([job], 1, folder.parent)
