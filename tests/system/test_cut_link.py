"""The cable between two hosts is pulled in the middle of a step: both sides say so, and the job ends."""

import json
import subprocess
import time

import psutil
import pytest
from support.scripts import BIN, ENVIRONMENT, PRETRAIN

from .hosts import Hosts, absent
from .test_slurm import until

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(absent()), reason=absent()),
    pytest.mark.timeout(900),  # of a machine that is shared
]


@pytest.fixture(scope="module")
def hosts():
    with Hosts() as two:
        yield two


def test_a_cut_link_ends_the_job(hosts, keys, tmp_path):
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("node-1 slots=1\nnode-2 slots=1\n")
    told = tmp_path / "environment"
    told.write_text("OMP_NUM_THREADS=1\n")
    run = tmp_path / "run"
    words = [
        "--hostfile",
        hostfile,
        *PRETRAIN,
        *keys,
        f"folder={run}",
        "length=100000 steps",
        "health.patience=8",
    ]
    alive = "-o ServerAliveInterval=5 -o ServerAliveCountMax=3"  # else pdsh waits for a dead link for ever
    process = subprocess.Popen(
        hosts.command(BIN / "deepspeed", *words),
        env={**ENVIRONMENT, "DS_ENV_FILE": str(told), "PDSH_SSH_ARGS_APPEND": alive},
        stdout=(tmp_path / "log").open("w"),
        stderr=subprocess.STDOUT,
    )
    lines, end = run / "metrics.jsonl", time.monotonic() + 300
    while not (lines.exists() and len(lines.read_bytes().splitlines()) >= 5):
        assert time.monotonic() < end and process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    try:
        hosts.link(1, "down")
        assert process.wait(timeout=240) != 0
        # A launcher that gives up on its dead ssh may be faster than the ranks' report.
        until((run / "ranks" / "hang.txt").exists)
        state = json.loads((run / "state.json").read_bytes())
        assert (state["state"], state["reason"], state["culprits"]) == ("failed", "hang", []), state
        report = (run / "ranks" / "hang.txt").read_text()
        assert "a link between hosts may be cut" in report
        assert "(node-1)" in report and "(node-2)" in report and "in a collective" in report
    finally:
        hosts.link(1, "up")
    psutil.wait_procs(family, timeout=120)
    assert not [one for one in family if one.is_running()]
