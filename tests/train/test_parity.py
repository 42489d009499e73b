"""Every number of ranks and ZeRO stage trains the same model, and goes on from any other's checkpoint."""

from pathlib import Path

import pytest
import torch
from support.ranks import run_jobs
from support.runs import config, full_state, metrics, pretrain

from megarc.train.checkpoint import latest

STEPS = 6


def assert_close(one, other, tolerance):
    for name, values in full_state(one).items():
        again = full_state(other)[name]
        scale = values.abs().max().clamp_min(1e-8)
        assert ((values - again).abs().max() / scale) < tolerance, name


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """One process with ZeRO 0, and the same run on 1 and 2 ranks at every stage."""
    folder = tmp_path_factory.mktemp("runs")
    run_jobs([pretrain(folder / f"dp1-z{zero}", zero, STEPS) for zero in (0, 1, 2, 3)], 1, folder)
    jobs = [pretrain(folder / f"dp2-z{zero}", zero, STEPS) for zero in (0, 1, 2, 3)]
    jobs += [pretrain(folder / f"bf16-z{zero}", zero, 3) for zero in (1, 2, 3)]
    for job in jobs[-3:]:
        job["config"]["precision"] = "bf16"
    jobs.append(pretrain(folder / "dp2-recompute", 3, STEPS, execution__recompute="full"))
    run_jobs(jobs, 2, folder)
    return folder


@pytest.mark.parametrize(
    "name", ["dp1-z1", "dp1-z2", "dp1-z3", *(f"dp2-z{z}" for z in range(4)), "dp2-recompute"]
)
def test_equals_one_process(runs, name):
    for number in ("train/nats_per_token", "train/gradient_norm", "heldout/nats_per_token"):
        one, other = metrics(runs / "dp1-z0", number), metrics(runs / name, number)
        assert len(one) >= 2
        assert torch.allclose(one, other, rtol=1e-5), number
    # Adam divides by a root: where a gradient is all rounding, so is its direction.
    assert_close(runs / "dp1-z0", runs / name, 2e-4)


def test_gradients_were_clipped(runs):
    assert (metrics(runs / "dp1-z0", "train/gradient_norm") > 0.5).all()


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_bf16_stays_near_fp32(runs, zero):
    one = metrics(runs / "dp1-z0", "train/nats_per_token")[:3]
    assert torch.allclose(one, metrics(runs / f"bf16-z{zero}", "train/nats_per_token"), rtol=1e-2)


def test_goes_on_at_any_other_topology(runs, tmp_path):
    """2 ranks stage 2, then 1 rank stage 3, then 2 ranks stage 0, then 1 rank stage 1: one run."""
    folder = tmp_path / "run"
    for length, world, zero in ((2, 2, 2), (3, 1, 3), (5, 2, 0), (STEPS, 1, 1)):
        run_jobs([pretrain(folder, zero, length)], world, tmp_path)
    assert torch.allclose(
        metrics(runs / "dp1-z0", "train/nats_per_token"), metrics(folder, "train/nats_per_token"), rtol=1e-5
    )
    assert_close(runs / "dp1-z0", folder, 2e-4)


def test_state_reshards_bit_for_bit(runs, tmp_path):
    """Loaded and saved again at another topology, not a bit of master or moments differs."""
    first = latest(runs / "dp2-z3" / "checkpoints")
    assert first is not None
    there, jobs = first.folder, []
    for number, zero in enumerate((0, 2, 1, 3)):
        target = tmp_path / str(number) / "checkpoints"
        job = {
            "do": "resave",
            "config": config(tmp_path / "x", zero, STEPS),
            "from": str(there),
            "to": str(target),
        }
        jobs.append(job)
        there = target / there.name
    run_jobs(jobs[:2], 2, tmp_path)
    run_jobs(jobs[2:], 1, tmp_path)
    start = full_state(runs / "dp2-z3")
    for number in range(4):
        again = full_state(tmp_path / str(number) / "checkpoints")
        assert start.keys() == again.keys()
        assert all(torch.equal(values, again[name]) for name, values in start.items())
