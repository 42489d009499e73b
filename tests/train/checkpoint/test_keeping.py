"""Checkpoints while disks misbehave: full, slow, vanished; on the hosts' own disks; those that stay for good."""

import json
import shutil

import pytest
import torch
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

STEPS = 8


def saved(folder):
    return [int(path.parent.name[5:]) for path in sorted(folder.glob("checkpoints/step-*/manifest.json"))]


def log_of(folder):
    return (folder / "log.txt").read_text()


def state(folder):
    return json.loads((folder / "state.json").read_bytes())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One process group of two ranks, run after run."""
    folder = tmp_path_factory.mktemp("keeping")
    jobs = []

    def add(name, *faults, may_fail=False, **changes):
        keys = {"checkpoint__every": "2 steps", "checkpoint__keep": 9, **changes}
        jobs.append(
            {**pretrain(folder / name, 2, STEPS, **keys), "faults": list(faults), "may_fail": may_fail}
        )

    add("clean")
    add("foreground", checkpoint__background=False)
    add("kept", checkpoint__every="1 steps", checkpoint__keep=2, checkpoint__keep_every="3 steps")
    full = [
        {"do": "full disk", "at": "writing", "step": 4, "rank": 1},
        {"do": "disk again", "at": "forward", "step": 6, "rank": 1},
    ]
    add("full-continue", *full, checkpoint__on_error="continue", checkpoint__background=False)
    add("full-stop", *full, may_fail=True, checkpoint__background=False)
    jobs.append({"do": "disk again"})
    add("full-stop")
    late = {"do": "full disk", "at": "saving", "step": 8, "rank": 1}
    add("full-end", late, may_fail=True, checkpoint__on_error="continue")
    jobs.append({"do": "disk again"})
    gone = {"do": "remove", "at": "renaming", "step": 4, "rank": 0}
    add("gone", {**gone, "name": f"{folder}/gone/checkpoints/step-000000004"}, checkpoint__on_error="continue",
        checkpoint__background=False)  # fmt: skip
    vanished = {"do": "remove", "at": "forward", "step": 5, "rank": 0, "name": f"{folder}/vanished"}
    add("vanished", vanished, may_fail=True, checkpoint__background=False)
    # It takes longer than two steps, on a busy machine too.
    slow = {"do": "slow", "at": "writing", "seconds": 4.0, "rank": 0, "step": 2}
    add("slow-continue", slow, checkpoint__on_error="continue")
    add("slow-stop", slow)
    folder.joinpath("output").write_text(run_jobs(jobs, 2, folder))
    return folder


@pytest.mark.parametrize(
    "name", ["foreground", "kept", "full-continue", "full-stop", "gone", "slow-continue"]
)
def test_whatever_the_disk_does_the_training_is_the_same(runs, name):
    assert state(runs / name)["state"] == "finished"
    one, other = metrics(runs / "clean", "train/nats_per_token"), metrics(runs / name, "train/nats_per_token")
    assert torch.equal(one, other)
    there = full_state(runs / "clean")
    assert all(torch.equal(values, there[part]) for part, values in full_state(runs / name).items())


def test_newest_stay_and_multiples_stay_for_good(runs):
    assert saved(runs / "kept") == [3, 6, 7, 8]


def test_a_full_disk_is_named_and_training_goes_on(runs):
    assert saved(runs / "full-continue") == [2, 6, 8]
    log = log_of(runs / "full-continue")
    assert "step-000000004 could not be written (rank 1: " in log and "training continues" in log
    assert "step-000000002 is whole and stays" in log
    assert not (runs / "full-continue" / "checkpoints" / "step-000000004").exists(), (
        "it would hold the full disk"
    )


def test_a_full_disk_ends_the_run_where_that_is_asked_for(runs):
    log = log_of(runs / "full-stop")
    assert "failed: UserError: checkpoint " in log and "could not be written (rank 1: " in log
    assert "resumes from step 2" in log


def test_a_last_checkpoint_that_cannot_be_written_is_no_success(runs):
    assert state(runs / "full-end")["state"] == "failed"
    assert "tried once more at the end" in log_of(runs / "full-end")
    assert saved(runs / "full-end") == [2, 4, 6]


def test_a_checkpoint_that_vanishes_while_it_is_written_is_named(runs):
    assert saved(runs / "gone") == [2, 6, 8]
    assert "step-000000004 could not be written (rank 0: " in log_of(runs / "gone")


def test_a_vanished_run_folder_is_named_and_not_made_anew(runs):
    output = (runs / "output").read_text()
    assert f"{runs / 'vanished' / 'checkpoints'} has vanished" in output
    assert not (runs / "vanished").exists()


def test_a_slow_disk_costs_a_checkpoint_or_a_wait(runs):
    assert "step 4 is not saved: the disk is still busy" in log_of(runs / "slow-continue")
    assert saved(runs / "slow-continue") in ([2, 8], [2, 6, 8])
    assert saved(runs / "slow-stop") == [2, 4, 6, 8]


def test_a_checkpoint_from_a_newer_version_is_refused(runs, tmp_path):
    shutil.copytree(runs / "clean", tmp_path / "run")
    manifest = tmp_path / "run" / "checkpoints" / f"step-{STEPS:09d}" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    output = run_jobs([pretrain(tmp_path / "run", 2, STEPS + 2)], 1, tmp_path, expect_failure=True)
    assert "has format 99, this megarc reads up to" in output and "use a newer megarc" in output


def test_after_a_kill_the_hosts_own_disks_go_on_where_they_are_whole(tmp_path):
    """Each rank as if on a host of its own; killed after step 7, of which only their disks know."""
    disks = tmp_path / "disk-$RANK"
    keys = {"checkpoint__every": "4 steps", "checkpoint__local": str(disks), "checkpoint__local_every": "1 steps",
            "checkpoint__background": False}  # fmt: skip
    job = pretrain(tmp_path / "run", 1, STEPS, **keys)
    kill = {"do": "kill", "at": "forward", "step": 8, "rank": 1}
    run_jobs([{**job, "faults": [kill]}], 2, tmp_path, expect_failure=True)
    assert saved(tmp_path / "run") == [4]
    copies = tmp_path / "copy"
    for name in ("run", "disk-0", "disk-1"):
        shutil.copytree(tmp_path / name, copies / name)
    clean = pretrain(tmp_path / "clean", 1, STEPS)
    output = run_jobs([job, clean], 2, tmp_path)
    assert "step 7 lies on the hosts' own disks" in output and "resumes from step 7" in output
    there = full_state(tmp_path / "clean")
    assert all(torch.equal(values, there[part]) for part, values in full_state(tmp_path / "run").items())
    # On one of them a byte is flipped in the newest: the one before it. Then a host is gone, and with it
    # half of the state: the shared one it is.
    for spoil, goes_on in ((flip_newest, 6), (shutil.rmtree, 4)):
        for name in ("run", "disk-0", "disk-1"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            shutil.copytree(copies / name, tmp_path / name)
        spoil(tmp_path / "disk-1")
        assert f"resumes from step {goes_on} " in run_jobs([job], 2, tmp_path)
    assert all(torch.equal(values, there[part]) for part, values in full_state(tmp_path / "run").items())


def flip_newest(disk):
    victim = sorted(disk.glob("*/step-*/*.safetensors"))[-1]
    content = bytearray(victim.read_bytes())
    content[-5] ^= 1
    victim.write_bytes(content)
