"""Branched training: the rule, then a real study from the launcher to a run of its answer."""

import json
import math
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support import processes

from megarc.batchsize.branches import critical_multiple, smoothed
from megarc.config import load
from megarc.jobs import Job
from megarc.train import RunConfig, find_checkpoint
from megarc.train.checkpoint.layout import digest_of

ROOT = Path(__file__).parents[2]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6), st.floats(1e-6, 1))
def test_the_rule_of_merrill(losses, tolerance):
    by_multiple = {2.0**place: loss for place, loss in enumerate(losses)}
    critical = critical_multiple(by_multiple, tolerance)
    for multiple, loss in by_multiple.items():
        near_all_smaller = all(loss <= by_multiple[m] + tolerance for m in by_multiple if m < multiple)
        assert near_all_smaller if multiple == critical else multiple < critical or not near_all_smaller


def test_examples_of_the_rule():
    assert critical_multiple({1: 3.0, 2: 3.005, 4: 3.02, 8: 3.1}, 0.01) == 2
    assert critical_multiple({1: 3.0, 2: 2.9, 4: 2.905}, 0.01) == 4
    assert critical_multiple({1: 3.0, 2: 3.1}, 0.01) == 1
    assert smoothed([4.0, 2.0, 1.0]) == pytest.approx(2.0)


# ---- a study of a tiny run: 8 samples a step, a trunk of 8 steps, branches of 64 samples

CONFIG = """
length: 24 steps
seed: 1
window: {recent: 24, causal: 16, stride: 16}
model: {layers: 1, hidden: 32, heads: 2}
data: {train: [{kind: pointer_chase}]}
batch: {size: 8, micro: 4}
optimizer: {lr: 3e-3}
schedule: {kind: cosine, warmup: 2 steps}
logging: {tensorboard: false, peak_flops: 1.0e+12}
tune:
  micro: {recompute: [none], repeats: 1, largest: 8}
  branches: {trunk: 8 steps, length: 64 samples, lines: 4, multiples: [1, 2, 4]}
"""


def tune(*words, code=0, **more):
    line = [sys.executable, "launch/tune_batch.py", *map(str, words)]
    done = processes.run(
        line, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **more}
    )
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "run.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def keys(place):
    return ["--config", place / "run.yaml", f"folder={place}/run", f"tune.folder={place}/study"]


@pytest.fixture(scope="module")
def studied(place, keys):
    return tune(*keys)


def job(path):
    return Job(load(RunConfig, path), 0)


def test_branches_are_normal_runs_over_the_same_samples(studied, place):
    trunk = find_checkpoint(place / "study" / "trunk")
    assert (trunk.standing.step, trunk.standing.samples) == (8, 64)
    for multiple in (1, 2, 4):
        config = load(RunConfig, place / "study" / f"times-{multiple}.yaml")
        assert config.batch.size == 8 * multiple
        assert config.optimizer.lr == pytest.approx(3e-3 * math.sqrt(multiple))
        standing = find_checkpoint(config.folder).standing
        assert (standing.step, standing.samples) == (8 + 16 // multiple, 64 + 128)


def test_a_branch_at_one_time_the_batch_is_the_run_itself(studied, place):
    """Trained through without a stop, by the same file with another folder."""
    tree = yaml.safe_load(CONFIG)
    del tree["tune"]
    (place / "through.yaml").write_text(yaml.safe_dump({**tree, "until": "24 steps"}))
    line = [
        sys.executable,
        "launch/pretrain.py",
        "--config",
        f"{place}/through.yaml",
        f"folder={place}/through",
    ]
    processes.run(line, cwd=ROOT, check=True, capture_output=True)
    one, other = (
        load_file(find_checkpoint(folder).folder / "rank-00000.safetensors")
        for folder in (place / "through", place / "study" / "times-1")
    )
    assert one.keys() == other.keys() and all(
        torch.equal(values, other[name]) for name, values in one.items()
    )


def test_the_decision_is_the_rule_on_what_the_runs_told(studied, place):
    told = json.loads((place / "study" / "branches.json").read_text())
    losses = {}
    for multiple in (1, 2, 4):
        lines = [json.loads(line) for line in
                 (place / "study" / f"times-{multiple}" / "metrics.jsonl").read_text().splitlines()]  # fmt: skip
        steps = [line["train/nats_per_token"] for line in lines if "train/nats_per_token" in line]
        parts = torch.tensor(steps, dtype=torch.float64).view(4, -1).mean(1).tolist()
        losses[multiple] = smoothed(parts)
        assert told["losses"][str(multiple)] == pytest.approx(losses[multiple])
    assert told["multiple"] == critical_multiple(losses, 0.01)
    assert (place / "study" / "branches.png").stat().st_size > 5000


def test_the_answer_runs_as_it_stands(studied, place):
    answer = place / "study" / "tuned.yaml"
    text, tree = answer.read_text(), yaml.safe_load(answer.read_text())
    told = json.loads((place / "study" / "branches.json").read_text())
    if told["multiple"] > 1:
        assert tree["batch"]["stages"] == [{"at": "64 samples", "size": told["size"]}]
        assert tree["length"] == "192 samples"
    assert "nats of every smaller one" in text and "predicted tokens/s a rank" in text
    line = [sys.executable, "launch/pretrain.py", "--config", answer, f"folder={place}/answer"]
    done = processes.run(list(map(str, line)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert find_checkpoint(place / "answer").standing.samples == 192


def test_the_same_command_uses_what_is_there(studied, place, keys):
    before = {path: path.stat().st_mtime_ns for path in (place / "study").rglob("rank-*.safetensors")}
    shutil.rmtree(place / "study" / "times-4")  # as if that branch had never run
    again = tune(*keys)
    assert "exists already" in again
    after = {path: path.stat().st_mtime_ns for path in (place / "study").rglob("rank-*.safetensors")}
    assert {path for path in before if before[path] != after.get(path)} == {
        path for path in before if "times-4" in path.parts
    }
    assert again.splitlines()[-30:-1] != [] and "critical batch at sample 64" in again


def test_other_keys_are_refused(studied, keys):
    assert "of a study with other keys" in tune("branches", *keys, "optimizer.lr=1e-3", code=2)


def spoilt(place, name, change):
    """A copy of the trunk's run whose checkpoint is changed."""
    folder = place / name
    shutil.copytree(place / "study" / "trunk", folder)
    change(find_checkpoint(folder).folder)
    return folder


def without_moments(checkpoint):
    """The masters alone, under a manifest that fits them: one of format 2, which has no checksum of itself."""
    path = checkpoint / "rank-00000.safetensors"
    save_file({name: values for name, values in load_file(path).items() if name.endswith("/master")}, path)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["checksum"]
    manifest["format"] = 2
    manifest["files"][path.name] = {"size": path.stat().st_size, "sha256": digest_of(path)}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_a_checkpoint_without_optimizer_state_is_refused(studied, place, keys):
    folder = spoilt(place, "bare", without_moments)
    said = tune("branches", *keys, f"tune.folder={place}/other", "--checkpoint", folder, code=2)
    assert "has no optimizer state" in said
    exported = place / "exported"
    line = ["launch/export.py", "--run", place / "study" / "trunk", "--to", exported]
    processes.run([sys.executable, *map(str, line)], cwd=ROOT, check=True, capture_output=True)
    said = tune("branches", *keys, f"tune.folder={place}/other", "--checkpoint", exported, code=2)
    assert "exported model without optimizer state" in said


def test_bad_multiples_and_absent_runs_are_told(studied, place, keys):
    other = [*keys, f"tune.folder={place}/other", "--checkpoint", place / "study" / "trunk"]
    assert "is 2.4 samples" in tune("branches", *other, "tune.branches.multiples=[1,0.3]", code=2)
    assert "two multiples or more" in tune("branches", *other, "tune.branches.multiples=[1]", code=2)
    assert "does not exist" in tune("branches", *keys, "--checkpoint", place / "nowhere", code=2)


def test_without_slurm_the_array_is_written(studied, place, keys):
    """No sbatch on the path: the file and the command are there for where it is."""
    words = [
        *keys,
        f"tune.folder={place}/array",
        "--checkpoint",
        place / "study" / "trunk",
        "--submit",
        "--nodes 2",
    ]
    said = tune("branches", *words, code=2, PATH="/nowhere")
    assert "there is no sbatch here" in said
    lines = (place / "array" / "array.txt").read_text().splitlines()
    assert [line.rsplit("/", 1)[1] for line in lines] == ["times-1.yaml", "times-2.yaml", "times-4.yaml"]
    command = (place / "array" / "submit.sh").read_text()
    assert "--array=1-3 " in command and " --nodes 2 " in command and "MEGARC_SWEEP=" in command
