"""Two hosts with disks of their own: one is lost with its disk, and a fresh one in its place goes on from a copy."""

import os
import re
import subprocess
import sys

import pytest
from support import processes
from support.runs import metrics
from support.scripts import ENVIRONMENT, PRETRAIN, ROOT

from megarc.rank_environment import free_port

from .hosts import Hosts, absent
from .test_slurm import SLOW, steps_done, until

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(absent()), reason=absent()),
    pytest.mark.timeout(900),  # of a machine that is shared
]

KEYS = ["length=30 steps", "checkpoint.every=1000 steps", "parallel.zero=1", "health.self_check=off"]
NO_ROOM = re.compile(r"was not copied to this host: .* has 0\.\d MiB free, and 1\.\d are needed")


@pytest.fixture
def hosts():
    with Hosts() as two:
        yield two


def ranks(words, hosts=None, **more):
    """Two ranks of a run, on the two hosts or both here."""
    place = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": str(free_port())}
    place |= {"MASTER_ADDR": hosts.names[0] if hosts else "127.0.0.1", **more}
    command = [sys.executable, *PRETRAIN, *map(str, words)]
    start = subprocess.Popen if hosts else processes.start
    return [
        start(
            hosts.command(*command, host=rank) if hosts else command,
            env={**ENVIRONMENT, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        for rank in range(2)
    ]


def test_a_lost_host_is_replaced_and_goes_on_from_the_copy_of_its_disk(hosts, keys, tmp_path):
    for rank in ranks([*keys, *KEYS, f"folder={tmp_path}/clean"]):
        said = rank.communicate(timeout=240)[0]
        assert rank.returncode == 0, said
    run, disk = tmp_path / "run", tmp_path / "disk"
    disk.mkdir()
    # The second host's disk has room for its own checkpoints, and not for the first one's.
    mount(hosts, 0, disk, "64m")
    mount(hosts, 1, disk, "1500k")
    words = [*keys, *KEYS, f"folder={run}", f"checkpoint.local={disk}", "checkpoint.local_every=1 steps",
             "checkpoint.peers=1"]  # fmt: skip
    survivor, lost = ranks(words, hosts, MEGARC_FAULTS=SLOW)
    copies = hosts.seen(0, disk)
    until(lambda: steps_done(run) >= 6 and newest(copies) >= 4 and NO_ROOM.search(log_of(run, 1)))
    hosts.lose(1)
    copied = newest(copies)
    said = survivor.communicate(timeout=240)[0]
    lost.communicate(timeout=60)
    assert survivor.returncode != 0 and not list((run / "checkpoints").glob("step-*/manifest.json")), said
    hosts.replace(1)
    mount(hosts, 1, disk, "64m")
    first, second = ranks(words, hosts)
    said, of_second = first.communicate(timeout=240)[0], second.communicate(timeout=60)[0]
    assert first.returncode == second.returncode == 0, said + of_second
    assert int(re.search(r"resumes from step (\d+) ", said)[1]) >= copied, said
    log = log_of(run, 1)
    assert "was brought back from" in log and "peers/rank-00001/step-" in log, log
    name = "train/nats_per_token"
    assert metrics(run, name).tolist() == metrics(tmp_path / "clean", name).tolist()


def newest(disk):
    """The step of the newest whole copy of the second host's checkpoints; 0: there is none."""
    manifests = disk.glob("*/peers/rank-00001/step-*/manifest.json")
    return max((int(manifest.parent.name[5:]) for manifest in manifests), default=0)


def log_of(run, rank):
    file = run / "ranks" / f"rank-{rank:05d}.log"
    return file.read_text() if file.exists() else ""


def mount(hosts, host, disk, size):
    command = hosts.command("mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk, host=host)
    subprocess.run(command, check=True, env=os.environ)
