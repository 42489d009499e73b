"""Branches as an array on a real SLURM: submitted, trained by tasks of two ranks each, then decided."""

import json
import sys

import pytest
from support.scripts import ROOT, state

from .slurm import absent

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(absent()), reason=absent())]

CONFIG = """
length: 24 steps
window: {recent: 24, causal: 16, stride: 16}
model: {layers: 1, hidden: 32, heads: 2}
data: {train: [{kind: pointer_chase}]}
batch: {size: 8}
schedule: {kind: constant, warmup: 2 steps}
logging: {tensorboard: false, peak_flops: 1.0e+12}
tune: {branches: {trunk: 8 steps, length: 64 samples, lines: 4, multiples: [1, 2, 4]}}
"""
OPTIONS = "--nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --gpus-per-node=0"


def test_branches_are_an_array(slurm, tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG)
    study = tmp_path / "study"

    def branches(*words):
        words = ["--config", tmp_path / "run.yaml", f"tune.folder={study}", *words]
        return slurm.call(sys.executable, ROOT / "launch" / "tune_batch.py", "branches", *words, cwd=tmp_path)

    said = branches("--submit", OPTIONS)
    number = said.split("submitted as job ")[1].split(",")[0]
    slurm.wait(number)
    logs = "\n".join(log.read_text() for log in study.glob("slurm-*.log"))
    for multiple in (1, 2, 4):
        assert (study / f"times-{multiple}" / "state.json").exists(), logs
        assert state(study / f"times-{multiple}") == "finished", logs
    assert "2 ranks by slurm" in logs
    assert "critical batch at sample 64" in branches("--submit", OPTIONS)
    told = json.loads((study / "branches.json").read_text())
    assert set(told["losses"]) == {"1", "2", "4"}
