"""Compiled blocks train as eager ones do, at every ZeRO stage, split over ranks, computed again or not."""

import pytest
import torch
from support.ranks import run_jobs
from support.runs import metrics, pretrain

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


def test_without_a_compiler_it_says_so_and_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    output = run_jobs([pretrain(tmp_path / "run", 1, 2, execution__compile=True)], 1, tmp_path)
    assert output.count("there is no C++ compiler") == 1
    assert len(metrics(tmp_path / "run", "train/nats_per_token")) == 2
