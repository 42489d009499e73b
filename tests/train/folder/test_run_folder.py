"""A run folder lets its own run in and no other."""

import json

import pytest

from megarc.config import build
from megarc.errors import UserError
from megarc.train import RunConfig, RunFolder
from megarc.train.metrics.metrics import cut_metrics


def config(**tree):
    return build(RunConfig, tree, "test")


def test_the_same_run_comes_back_with_other_circumstances(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.enter(config(seed=1), {"ranks": 1})
    folder.enter(config(seed=1, parallel={"zero": 3}, length="9k steps", batch={"micro": 4}), {"ranks": 2})
    assert json.loads(folder.environment.read_bytes())["ranks"] == 2
    assert json.loads(folder.environment.read_bytes())["packages"]["torch"]


def test_another_run_is_refused_and_the_difference_shown(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.enter(config(seed=1, window={"recent": 8, "causal": 8}), {})
    before = folder.config.read_bytes()
    with pytest.raises(UserError, match=r"(?s)seed: 1 there, 2 now.*window.recent: 8 there, 16 now"):
        folder.enter(config(seed=2, window={"recent": 16, "causal": 8}), {})
    assert folder.config.read_bytes() == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"thesis.tex"):
        RunFolder(tmp_path).enter(config(), {})


def test_metrics_beyond_the_checkpoint_are_cut_and_half_lines_too(tmp_path):
    folder = RunFolder(tmp_path)
    lines = [json.dumps({"step": step, "x": 1}) for step in (1, 2, 3, 4)]
    folder.metrics.write_text("\n".join(lines) + '\n{"step": 5, "x"')
    cut_metrics(folder, 3)
    assert folder.metrics.read_text() == "\n".join(lines[:3]) + "\n"


def test_the_cause_of_a_failure_stands_over_its_consequences(tmp_path):
    folder = RunFolder(tmp_path)
    folder.record_failure("rank 1 hangs", reason="hang", culprits=[1])
    with (
        pytest.raises(ConnectionError),
        folder.failures_recorded(lambda: "step 4, backward", known=lambda: True),
    ):
        raise ConnectionError("closed by rank 1")
    assert json.loads(folder.state.read_bytes())["reason"] == "hang"
    with (
        pytest.raises(ConnectionError),
        folder.failures_recorded(lambda: "step 4, backward", known=lambda: False),
    ):
        raise ConnectionError("closed by rank 1")
    assert json.loads(folder.state.read_bytes())["at"] == "step 4, backward"
