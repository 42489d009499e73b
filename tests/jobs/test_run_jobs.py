"""Runs side by side: how many at once, what a failure does, with a stand-in for the run's script."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from megarc.config import build
from megarc.errors import UserError
from megarc.jobs import Job, run_all, start_of
from megarc.train import RunConfig

STAND_IN = """
import json, pathlib, sys, time
import yaml
config = yaml.safe_load(open(sys.argv[sys.argv.index("--config") + 1]))
folder = pathlib.Path(config["folder"])
folder.mkdir(parents=True, exist_ok=True)
begun = time.time()
if config["seed"] == 13:
    sys.exit("out of luck")
time.sleep(0.3)
(folder / "metrics.jsonl").write_text(json.dumps({"step": 4, "heldout/accuracy": config["seed"] / 100}) + "\\n")
(folder / "state.json").write_text(json.dumps({"state": "finished", "step": 4, "total": 4}))
(folder / "times").write_text(json.dumps([begun, time.time()]))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return start_of("", path)


def jobs(folder, seeds):
    (folder / "runs").mkdir(exist_ok=True)
    tree = {"length": "4 steps", "data": {"train": [{"kind": "pointer_chase"}]}}
    return [
        Job(build(RunConfig, {**tree, "seed": seed, "folder": str(folder / "runs" / f"s{seed}")}, "test"), 4)
        for seed in seeds
    ]


def test_no_more_than_asked_run_at_once_and_what_is_finished_is_left_alone(tmp_path, script):
    all_of_them = jobs(tmp_path, range(5))
    run_all(all_of_them, script, 2, "runs")
    assert all(job.finished() and job.step() == 4 for job in all_of_them)
    times = [json.loads((job.config.folder / "times").read_text()) for job in all_of_them]
    assert max(sum(begin <= one[0] < end for begin, end in times) for one in times) <= 2
    before = time.time()
    run_all(all_of_them, [sys.executable, str(tmp_path / "none.py")], 2, "runs")
    assert all(json.loads((job.config.folder / "times").read_text())[1] < before for job in all_of_them)


def test_a_failure_ends_the_others_unless_it_is_only_noted(tmp_path, script):
    some = jobs(tmp_path, [13, 1, 2])
    with pytest.raises(UserError, match=r"s13 did not finish; the end of .*s13\.log:\nout of luck"):
        run_all(some, script, 1, "runs")
    assert not some[1].finished()
    noted = []
    run_all(some, script, 1, "runs", lambda job, error: noted.append((job.config.seed, str(error))))
    assert [seed for seed, _ in noted] == [13] and "out of luck" in noted[0][1]
    assert some[1].finished() and some[2].finished()


def test_a_study_is_not_resumed_under_other_keys(tmp_path, script):
    first = jobs(tmp_path, [1])
    run_all(first, script, 1, "runs")
    other = Job(first[0].config.model_copy(update={"precision": "bf16"}), 4)
    with pytest.raises(UserError, match="is of a study with other keys; give the study another folder"):
        run_all([other], script, 1, "runs")


def test_a_launcher_stands_before_the_script(tmp_path):
    assert start_of("torchrun --nproc-per-node 2", tmp_path) == [
        "torchrun",
        "--nproc-per-node",
        "2",
        str(tmp_path),
    ]
    assert start_of("", tmp_path) == [sys.executable, str(tmp_path)]


def test_a_name_with_a_dot_has_a_file_of_its_own(tmp_path):
    config = jobs(tmp_path, [0])[0].config
    both = [Job(config.model_copy(update={"folder": tmp_path / f"rate-0.5-s{seed}"}), 4) for seed in (0, 1)]
    assert [job.file.name for job in both] == ["rate-0.5-s0.yaml", "rate-0.5-s1.yaml"]
    assert both[0].log.name == "rate-0.5-s0.log"


def test_sigterm_ends_the_runs_and_gives_the_signal_back(tmp_path):
    """Runs that go on alone would hold their folders against the same command."""
    path, before = tmp_path / "long.py", signal.getsignal(signal.SIGTERM)
    path.write_text(f"import time, pathlib\npathlib.Path({str(tmp_path / 'up')!r}).touch()\ntime.sleep(60)\n")
    some = jobs(tmp_path, [1])

    def kill():
        while not (tmp_path / "up").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=kill).start()
    with pytest.raises(SystemExit) as ended:
        run_all(some, start_of("", path), 1, "runs")
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_launcher_that_cannot_start_anything_is_named(tmp_path):
    with pytest.raises(UserError, match=r"s1 cannot be started by 'no-such-launcher': .*No such file"):
        run_all(jobs(tmp_path, [1]), start_of("no-such-launcher", tmp_path), 1, "runs")
    with pytest.raises(UserError, match=r"--launcher .* cannot be split into words: No closing quotation"):
        start_of("srun 'a", tmp_path)


@pytest.mark.parametrize("state", [b"[]", b'"x"', b"{}", b'{"state": "finished", "step": "x"}', b"{"])
def test_a_damaged_state_is_that_of_no_finished_run(tmp_path, state):
    [job] = jobs(tmp_path, [1])
    job.config.folder.mkdir()
    job.folder.state.write_bytes(state)
    job.folder.metrics.write_bytes(b"[]")
    assert not job.finished() and job.step() == 0
