import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import orjson
import psutil
import pytest

from megarc.errors import UserError
from megarc.train.folder.folder_lock import hold

HOLDER = """
import sys, time
from pathlib import Path
from megarc.train.folder.folder_lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_living_job_keeps_others_out_and_a_killed_one_does_not(tmp_path):
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"in use by process {holder.pid} on {socket.gethostname()}"),
            hold(lock),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with hold(lock) as taken_over:
        assert f"process {holder.pid}" in taken_over
    assert not lock.exists()


@pytest.mark.parametrize(("age", "alive"), [(5, True), (600, False)])
def test_on_another_host_the_file_s_age_tells_whatever_the_clock_here(tmp_path, monkeypatch, age, alive):
    lock = tmp_path / "lock"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    lock.write_bytes(orjson.dumps({"host": "elsewhere", "process": os.getpid(), "job": "77", "started": "1"}))
    written = lock.stat().st_mtime - age
    os.utime(lock, (written, written))
    if alive:
        with pytest.raises(UserError, match="on elsewhere, job 77"), hold(lock):
            pass
    else:
        with hold(lock) as taken_over:
            assert "elsewhere" in taken_over


def test_a_half_written_lock_is_taken_over(tmp_path):
    lock = tmp_path / "lock"
    lock.write_bytes(b'{"host": "x", "pro')
    with hold(lock) as taken_over:
        assert taken_over


@pytest.mark.parametrize(("restart", "alive"), [("0", True), ("1", False)])
def test_a_requeued_job_takes_over_its_own_lock_at_once(tmp_path, monkeypatch, restart, alive):
    lock = tmp_path / "lock"
    before = {"host": "elsewhere", "process": 1, "job": "77", "restart": 0, "started": "1"}
    lock.write_bytes(orjson.dumps(before))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    if alive:
        with pytest.raises(UserError, match="job 77, last seen"), hold(lock):
            pass
    else:
        with hold(lock) as taken_over:
            assert "job 77" in taken_over


def test_a_crash_in_the_same_slurm_job_and_host_does_not_keep_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    lock = tmp_path / "lock"
    with hold(lock):
        ours = orjson.loads(lock.read_bytes())
    lock.write_bytes(orjson.dumps({**ours, "started": f"{ours['started']}0"}))
    with hold(lock) as taken_over:
        assert "job 77, which is gone" in taken_over


def test_a_clock_that_is_set_makes_no_living_job_look_gone(tmp_path, monkeypatch):
    """What a system derives from its clock, when a process began among it, moves with that clock."""
    began = psutil.Process.create_time
    with hold(tmp_path / "lock"):
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: began(process) + 1.0)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 1000.0)
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}"), hold(tmp_path / "lock"):
            pass


def test_another_numbering_of_processes_is_another_host(tmp_path):
    """Two containers of one name on one disk: the number says nothing, the file's age does."""
    lock = tmp_path / "lock"
    with hold(lock):
        ours = orjson.loads(lock.read_bytes())
    lock.write_bytes(orjson.dumps({**ours, "space": "pid:[1]", "started": "1"}))
    with pytest.raises(UserError, match="in use by"), hold(lock):
        pass


def race(lock, start, done, held, times):
    for _ in range(times):
        start.wait()
        with suppress(UserError), hold(lock):
            held.value += 1  # by one process at a time, or the count below shows it
            done.wait()
            continue
        done.wait()


@pytest.mark.parametrize("stale", [True, False])
def test_of_jobs_that_race_for_a_lock_one_gets_it(tmp_path, stale):
    lock, rivals, times = tmp_path / "lock", 4, 12
    spawn = multiprocessing.get_context("fork")
    start, done = spawn.Barrier(rivals + 1), spawn.Barrier(rivals + 1)
    held = spawn.Value("i", 0)
    processes = [spawn.Process(target=race, args=(lock, start, done, held, times)) for _ in range(rivals)]
    for process in processes:
        process.start()
    try:
        for number in range(times):
            lock.unlink(missing_ok=True)
            if stale:
                lock.write_bytes(
                    orjson.dumps({"host": socket.gethostname(), "process": 2**22 + 1, "started": "1"})
                )
            start.wait(60)
            done.wait(60)
            assert held.value == number + 1
    finally:
        for process in processes:
            process.kill()


def test_a_job_that_lost_its_lock_is_told_and_leaves_it(tmp_path):
    lock, told, heard = tmp_path / "lock", [], threading.Event()

    def lost(message):
        told.append(message)
        heard.set()

    with hold(lock, beat=0.02, lost=lost):
        theirs = {"host": "elsewhere", "process": 1, "job": None, "started": "1", "token": "theirs"}
        beside = tmp_path / "theirs"
        beside.write_bytes(orjson.dumps(theirs))
        beside.replace(lock)
        assert heard.wait(30)
    assert "process 1 on elsewhere took over the run folder" in told[0] and len(told) == 1
    assert orjson.loads(lock.read_bytes()) == theirs


def test_signs_of_life_go_on_where_a_lock_was_removed(tmp_path):
    lock = tmp_path / "lock"
    with hold(lock, beat=0.02):
        lock.unlink()
        end = time.monotonic() + 30
        while not lock.exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert lock.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["lock.guard"]
