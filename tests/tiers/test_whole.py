"""The commands as a person gives them, on a small text: a stack whole, again, killed, misused, in use."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import processes

from megarc.tiers import Rollouts, open_stack

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
SMALL = [
    "prepare=null", "run.length=4 steps", "run.batch.size=4", "run.model.layers=1", "run.model.hidden=16",
    "run.model.heads=2", "run.window.recent=24", "run.window.causal=8", "run.window.stride=8",
    "run.validation.windows=4", "heldout.windows=16", "run.logging.peak_flops=1e12", "run.device=cpu",
    "tiers.bottom.run.window.causal=24", "tiers.bottom.run.window.stride=24", "tiers.bottom.writes.tokens=5",
    "tiers.bottom.writes.shard=4", "tiers.bottom.writes.batch=4", "tiers.top.data.windows=24",
]  # fmt: skip


def run(*command, code=0):
    done = processes.run(
        [str(word) for word in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=150,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert code == 0 or "Traceback" not in said, said
    return said


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Two corpora of bytes, from this repository's own sources."""
    folder = tmp_path_factory.mktemp("text")
    for name, source in (("train", "launch"), ("heldout", "data_tools")):
        run(sys.executable, "data_tools/preprocess.py", "--input", ROOT / source, "--output-prefix", folder / name,
            "--tokenizer-model", "bytes", "--append-eod", "--workers", 1)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def command(text):
    where = [f"tiers.{name}.data.path={text}/train" for name in ("bottom", "top")]
    where += [f"heldout.path={text}/heldout", f"folder={text}/stack"]
    return [sys.executable, "launch/tiers.py", "--config", "configs/tiers/two.yaml", *SMALL, *where]


@pytest.fixture(scope="module")
def stack(text, command):
    said = run(*command)
    return text / "stack", said


def test_one_command_builds_the_stack(stack):
    folder, said = stack
    assert re.search(r"\[4/4\] train top", said) and "tokens/s" in said
    assert said.count("every roll-out the stored one") == 2 and said.count("every token of C another") == 2
    assert re.search(r"top +128 +\d\.\d{4}", said) and "of a training step of their writer" in said
    assert json.loads((folder / "top" / "state.json").read_text())["state"] == "finished"
    assert Rollouts(folder / "rollouts" / "bottom-for-top").tokens.shape == (24, 2, 5)


def test_the_same_command_finds_everything_there(command, stack):
    before = {
        path: path.stat().st_mtime_ns
        for path in stack[0].rglob("*")
        if path.suffix in (".bin", ".safetensors")
    }
    said = run(*command)
    assert said.count("is there already") == 4
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_job_on_two_ranks_killed_and_begun_again_is_the_same(stack, tmp_path):
    folder, _ = stack
    whole = Rollouts(folder / "rollouts" / "bottom-for-top")
    job = [
        "launch/rollouts.py",
        "--config",
        folder / "stages" / "rollouts-bottom-for-top.yaml",
        f"to={tmp_path}/two",
    ]
    started = processes.start(
        [sys.executable, *map(str, job)], cwd=ROOT, env=ENVIRONMENT, stderr=processes.DEVNULL
    )
    shards = tmp_path / "two.parts"
    while not list(shards.glob("shard*.npz")) and started.poll() is None:
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()
    said = run(BIN / "torchrun", "--standalone", "--nproc-per-node", 2, *job)
    assert "shards are there already" in said or "is there already" in said
    again = Rollouts(tmp_path / "two")
    assert (again.tokens == whole.tokens).all()
    assert np.array_equal(again.log_probabilities, whole.log_probabilities)


def test_evaluate_and_generate_through_the_tiers(text, stack, tmp_path):
    folder, scores = stack[0], tmp_path / "scores.json"
    said = run(sys.executable, "launch/evaluate.py", "--tiers", folder, "--run", folder / "bottom", "--corpus",
               text / "heldout", "--tokens", 160, "--json", scores)  # fmt: skip
    assert "to the first" in said
    through, bottom = json.loads(scores.read_text()).values()
    assert through["tokens"] == bottom["tokens"] == 160 and through["first_target"] == 25
    generate = ["launch/generate.py", "--tiers", folder, "--prompt", "def", "--tokens", 30, "--no-stop",
                "--tokenizer-model", "bytes", "--temperature", 1]  # fmt: skip
    once = run(sys.executable, *generate)
    assert once.startswith("def")
    assert open_stack(folder).top == "top"


def test_mistakes_are_told_without_a_traceback(command, stack):
    longer = [*command, "tiers.bottom.writes.tokens=25"]  # on the stack that is there: its tier is trained
    assert "24 rows that learned to predict" in run(*longer, code=2)
    said = run(*command, "launcher=no-such-launcher", "run.length=5 steps", code=2)
    assert "cannot start no-such-launcher" in said
