"""Compiled blocks train as eager ones do, at every ZeRO stage, split over ranks, computed again or not."""

import pytest
import torch
from support.compilers import TRACED
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

STEPS = 4
WAYS = {
    "zero 1, selective every 2nd": (
        1,
        {"execution__recompute": "selective", "execution__recompute_every": 2},
    ),
    "zero 2, rows split": (2, {"parallel__tensor": 2, "parallel__sequence": True}),
    "zero 3, full": (3, {"execution__recompute": "full"}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run_jobs([pretrain(folder / "one", 0, STEPS)], 1, folder)
    jobs = [
        pretrain(folder / name, zero, STEPS, execution__compile=True, **keys)
        for name, (zero, keys) in WAYS.items()
    ]
    output = run_jobs(jobs, 2, folder, timeout=600)
    assert "runs eagerly" not in output  # a graph break, or nothing that compiles
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", WAYS)
def test_compiled_equals_eager(runs, way):
    for number in ("train/nats_per_token", "train/gradient_norm"):
        assert torch.allclose(metrics(runs / "one", number), metrics(runs / way, number), rtol=1e-5), number


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    """Traced alone, on plain windows: tests/model/mixers/test_compiled.py says why, and has documents."""
    folder = tmp_path_factory.mktemp("recurrent")
    own = {"model__mixers": "crf ssm_attention", "model__initial_std": 0.2, "data__valid": []}
    keys = {"parallel__tensor": 2, "parallel__sequence": True, **own}
    eager, compiled = (
        pretrain(folder / name, 1, 2, execution__compile=name == "compiled", **keys)
        for name in ("eager", "compiled")
    )
    output = run_jobs([eager, {**compiled, "backend": TRACED}], 2, folder)
    assert "a block of" not in output, "one is not compiled, and this says why"
    assert output.count("the chain of crf runs eagerly inside its compiled blocks") == 1
    return folder


def test_compiled_recurrent_layers_equal_eager_ones(recurrent):
    for number in ("train/nats_per_token", "train/gradient_norm"):
        ours, theirs = (metrics(recurrent / run, number) for run in ("compiled", "eager"))
        assert len(ours) == 2 and torch.allclose(ours, theirs, rtol=1e-5), number
    ours, theirs = (full_state(recurrent / run) for run in ("compiled", "eager"))
    for part, values in ours.items():
        if part.endswith("/exp_avg"):
            assert (values - theirs[part]).norm() <= 1e-5 * theirs[part].norm(), part


def test_without_a_compiler_it_says_so_and_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    output = run_jobs([pretrain(tmp_path / "run", 1, 2, execution__compile=True)], 1, tmp_path)
    assert output.count("there is no C++ compiler") == 1
    assert len(metrics(tmp_path / "run", "train/nats_per_token")) == 2
