"""A rank that doesn't come back is named, and the launcher ends the job without an orphan."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from support import processes
from support.runs import pretrain

from megarc.config import build, to_yaml
from megarc.parallel import Group
from megarc.rank_environment import free_port
from megarc.train import RunConfig
from megarc.train.health.hang_report import Sight, culprits, report
from megarc.train.health.watchdog import _Watch
from megarc.train.heartbeat import Heartbeat
from megarc.train.loop import Ending, Moment, Observer, train

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 4


def sight(rank, step=5, phase="backward", count=40, waits=True, host="host"):
    return Sight(rank, host, 100 + rank, step, phase, count, 9.0, waits, {"MainThread": [f"line of {rank}"]})


@pytest.mark.parametrize(
    ("sights", "blamed", "word"),
    [
        ([sight(0), None, sight(2)], [1], "wrote nothing"),
        ([sight(0), sight(1), sight(2, phase="waiting for data", waits=False)], [2], "not in a collective"),
        ([sight(0), sight(1, count=39), sight(2)], [1], "behind"),
        ([sight(0, step=4, count=50), sight(1)], [0], "behind"),
        ([sight(0), sight(1)], [], "link between hosts"),
        # one side of a cut link has all it waited for, and goes one phase further than the other
        ([sight(0), sight(1, count=39, host="other")], [], "rank 1 in an earlier one; a link between hosts"),
        ([sight(0, waits=False), sight(1, count=39, waits=False, host="other")], [1], "behind"),
        ([sight(0, waits=False), sight(1, waits=False)], [], "none in a collective"),
    ],
)
def test_who_is_to_blame(sights, blamed, word):
    found, why = culprits(sights)
    assert found == blamed and word in why
    text = report(sights, 4)
    assert "step 5" in text and "4 s (health.patience)" in text
    assert all(f"line of {rank}" in text for rank in blamed if sights[rank])


@pytest.mark.parametrize(("phase", "stuck"), [("building", False), ("ending", True), ("saving", True)])
def test_the_end_of_a_start_without_steps_has_no_more_time_than_a_step(tmp_path, phase, stuck):
    """A run that was finished already was started again, and its link was cut: it waited for ten more minutes."""
    heartbeat = Heartbeat()
    heartbeat.enter(phase)
    heartbeat.since -= PATIENCE + 1
    assert _Watch(heartbeat, tmp_path, Group(0, 2), PATIENCE, print)._stuck() is stuck


def test_the_loop_says_that_it_ends():
    phases = []

    class Watching(Observer):
        def stop(self, engine, moment, ending):
            phases.append(engine.heartbeat.phase)

    engine = SimpleNamespace(heartbeat=Heartbeat(), groups=SimpleNamespace(world=Group(0, 1)))
    begin = Moment(40, 40, 320, 0)
    assert train(engine, iter(()), SimpleNamespace(settling=[]), [Watching()], begin) is Ending.FINISHED
    assert phases == ["ending"]


def prepared(tmp_path, faults):
    """The run's command and environment."""
    tree = pretrain(tmp_path / "run", 2, 50, health__patience=float(PATIENCE))["config"]
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(build(RunConfig, tree, "test")))
    environment = {**os.environ, "MEGARC_FAULTS": json.dumps(faults), "OMP_NUM_THREADS": "1"}
    return [str(ROOT / "launch" / "pretrain.py"), "--config", str(file)], environment


def launched(tmp_path, launcher, fault):
    """The run under a launcher, to its end: seconds, exit code, output, the processes it had."""
    command, environment = prepared(tmp_path, [fault])
    process = subprocess.Popen(
        [*launcher, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    family = set()
    while process.poll() is None:
        try:
            family |= set(psutil.Process(process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.2)
    return process.wait(), process.stdout.read(), family


BIN = Path(sys.executable).parent
TORCHRUN = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2"]
DEEPSPEED = [str(BIN / "deepspeed"), "--num_accelerators", "2", "--master_port", str(free_port())]


@pytest.mark.parametrize(
    ("launcher", "at", "rank", "phase"),
    [(TORCHRUN, "reading", 1, "waiting for data"), (DEEPSPEED, "forward", 0, "forward")],
)
def test_a_hang_ends_the_job_and_names_the_rank(tmp_path, launcher, at, rank, phase):
    code, said, family = launched(tmp_path, launcher, {"do": "hang", "at": at, "rank": rank, "step": 3})
    assert code != 0
    assert f"hang: rank {rank} is to blame (not in a collective" in said
    assert re.search(f"rank {rank}: step [34], {phase} for", said)  # reading is a step ahead
    assert "time.sleep(_FOREVER)" in said, "the stack of what hangs"
    assert (tmp_path / "run" / "ranks" / "hang.txt").read_text() in said
    state = json.loads((tmp_path / "run" / "state.json").read_bytes())
    assert (state["state"], state["reason"], state["culprits"]) == ("failed", "hang", [rank])
    assert len(family) >= 2 and not [one for one in family if one.is_running()]


def test_a_frozen_rank_is_named_by_its_silence(tmp_path):
    command, environment = prepared(tmp_path, [{"do": "freeze", "at": "backward", "rank": 0, "step": 3}])
    environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        processes.start(
            [sys.executable, *command],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=processes.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = ranks[1].communicate(timeout=100)[1]
        assert ranks[1].returncode == 1 and ranks[0].poll() is None
    finally:
        for rank in ranks:
            rank.kill()
    assert "hang: rank 0 is to blame (wrote nothing: frozen" in said
    assert "rank 1: step 3, " in said and "in a collective" in said
    assert json.loads((tmp_path / "run" / "state.json").read_bytes())["culprits"] == [0]
