"""What a run survives: kill -9, damaged and half-written checkpoints, a disk that is full."""

import json
import shutil
import signal
import sys
import time

import pytest
import torch
from support import processes
from support.ranks import WORKER, run_jobs
from support.runs import full_state, pretrain
from support.scripts import python

from megarc.errors import UserError
from megarc.train import load_model
from megarc.train.checkpoint import Level, latest

STEPS = 60


def start(job, folder):
    """The job on one rank, left running."""
    listed = folder / "jobs.json"
    listed.write_text(json.dumps([job]))
    return processes.start(
        [sys.executable, str(WORKER), str(listed)],
        stdout=processes.DEVNULL,
        stderr=processes.DEVNULL,
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


def test_an_unfinished_save_does_not_exist(copied):
    folder, _ = copied
    (latest(folder / "checkpoints").folder / "manifest.json").unlink()
    assert latest(folder / "checkpoints").standing.step == STEPS - 5


def cut(content):
    return content[: len(content) // 2]


def another_step(content):
    """One byte, and it is still JSON."""
    assert content.count(b'"step": 60') == 1
    return content.replace(b'"step": 60', b'"step": 40')


@pytest.mark.parametrize("spoil", [cut, another_step, lambda content: b"", lambda content: b"{}"])
def test_a_damaged_manifest_is_named_and_nothing_is_removed(copied, spoil):
    folder, job = copied
    manifest = latest(folder / "checkpoints").folder / "manifest.json"
    manifest.write_bytes(spoil(manifest.read_bytes()))
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.glob("checkpoints/**/*"))}
    told = f"{manifest} is damaged: .*to resume from the checkpoint before it, step-000000055:  mv "
    with pytest.raises(UserError, match=told):
        latest(folder / "checkpoints")
    if spoil is cut:
        assert f"{manifest} is damaged" in run_jobs([job], 1, folder.parent, expect_failure=True)
    # Whoever trains on with a later checkpoint leaves it where it is, and does not count it.
    Level(folder / "checkpoints", (0,), keep=1).prune()
    left = {path for path in before if path.parent.name != "step-000000050"} - {
        manifest.parents[1] / "step-000000050"
    }
    assert {path: path.stat().st_mtime_ns for path in sorted(folder.glob("checkpoints/*/*"))} == {
        path: before[path] for path in left if path.is_file()
    }


def test_a_damaged_checkpoint_in_the_way_of_a_new_one_is_set_aside(copied):
    folder, _ = copied
    newest = latest(folder / "checkpoints").folder
    (newest / "manifest.json").write_text("{")
    for level in (Level(newest.parent, (0,), keep=1),) * 2:
        level.remove_beyond(STEPS - 5)
    aside = newest.with_name(f"damaged-{newest.name}")
    assert not newest.exists() and (aside / "rank-00000.safetensors").exists()
    assert latest(folder / "checkpoints").standing.step == STEPS - 5


def test_what_reads_a_model_checks_its_files(copied):
    """Evaluation, generation and export: a byte of a weight, and one of the place where a weight lies."""
    folder, _ = copied
    newest = latest(folder / "checkpoints").folder
    assert load_model(folder).standing.step == STEPS
    for name in ("rank-00000.safetensors", "rank-00000.json"):
        content = bytearray((newest / name).read_bytes())
        content[len(content) // 2] ^= 1
        (newest / name).write_bytes(content)
        for path in (folder, newest):
            with pytest.raises(UserError, match=f"{name} is damaged: its digest"):
                load_model(path)
        if name.endswith("json"):
            output = python("launch/export.py", "--run", folder, "--to", folder.parent / "out", code=2)
            assert f"{newest / name} is damaged" in output
        content[len(content) // 2] ^= 1
        (newest / name).write_bytes(content)


def test_a_users_own_copies_are_left_alone(copied):
    folder, _ = copied
    checkpoints = folder / "checkpoints"
    for name in ("step-000000060-good", "step-000000055.bak", "best", "step-9", "step-0000000070.old"):
        shutil.copytree(checkpoints / "step-000000060", checkpoints / name)
    Level(checkpoints, (0,), keep=1).prune()
    assert {path.name for path in checkpoints.iterdir()} == {
        "step-000000060", "step-000000060-good", "step-000000055.bak", "best", "step-0000000070.old",
    }  # fmt: skip
    assert latest(checkpoints).folder.name == "step-000000060"
    for own in ("step-000000060-good", "best"):
        assert load_model(checkpoints / own).standing.step == STEPS


def test_checkpoints_of_another_run_on_the_hosts_own_disk_are_not_taken(tmp_path):
    """The folder was deleted and a run of another seed and rate begins there, and the disk still has the old one's."""
    disk, folder = tmp_path / "disk", tmp_path / "run"
    local = {"checkpoint__local": str(disk), "checkpoint__local_every": "1 steps"}
    other = {"seed": 1, "optimizer__lr": 1e-3}
    output = run_jobs(
        [
            pretrain(folder, 1, 6, **local),
            {"do": "forget", "folder": str(folder)},
            pretrain(folder, 1, 4, **local, **other),
            pretrain(tmp_path / "clean", 1, 4, **other),
        ],
        1,
        tmp_path,
    )
    assert "resumes from" not in output
    assert f"{disk} also holds checkpoints of other runs of this name (run-" in output
    assert json.loads((folder / "state.json").read_text())["step"] == 4
    clean = full_state(tmp_path / "clean")
    assert all(torch.equal(values, clean[part]) for part, values in full_state(folder).items())


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
