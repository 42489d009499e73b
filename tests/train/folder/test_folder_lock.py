import os
import socket
import subprocess
import sys
import time

import orjson
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
def test_on_another_host_the_heartbeat_tells(tmp_path, age, alive):
    lock = tmp_path / "lock"
    elsewhere = {"host": "elsewhere", "process": os.getpid(), "job": "77", "started": 1.0}
    lock.write_bytes(orjson.dumps({**elsewhere, "heartbeat": time.time() - age}))
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
    before = {"host": "elsewhere", "process": 1, "job": "77", "restart": 0, "started": 1.0}
    lock.write_bytes(orjson.dumps({**before, "heartbeat": time.time()}))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    if alive:
        with pytest.raises(UserError, match="job 77, last seen"), hold(lock):
            pass
    else:
        with hold(lock) as taken_over:
            assert "job 77" in taken_over


def test_a_lock_that_another_job_took_is_left_to_it(tmp_path):
    lock = tmp_path / "lock"
    with hold(lock):
        theirs = {"host": "elsewhere", "process": 1, "job": None, "started": 1.0, "heartbeat": time.time()}
        lock.write_bytes(orjson.dumps(theirs))
    assert orjson.loads(lock.read_bytes()) == theirs
