"""Every number of ranks and ZeRO stage trains the same model, and goes on from any other's checkpoint."""

from pathlib import Path

import pytest
import torch
from support.ranks import run_jobs
from support.runs import config, full_state, metrics, pretrain

from megarc.train.checkpoint import latest

STEPS = 6
# tensor, pipeline, data, ZeRO stage, sequence: every pair of settings is in one of them.
# `benchmarks/parity.py` runs all that fit 8 ranks.
MIXES = [
    (1, 1, 1, 1, False),
    (1, 1, 1, 3, False),
    (1, 1, 2, 0, False),
    (1, 1, 2, 2, False),
    (1, 1, 2, 3, False),
    (2, 1, 1, 0, True),
    (2, 1, 2, 1, False),
    (2, 1, 2, 3, True),
    (4, 1, 1, 2, True),
    (1, 2, 2, 1, False),
    (2, 2, 1, 1, True),
    (4, 2, 1, 1, False),
    (2, 2, 2, 1, True),
]


SWITCHES = ["full", "selective", "split-selective", "offload-1", "offload-3", "node", "every-2"]


def name(mix):
    tensor, pipeline, data, zero, sequence = mix
    return f"tp{tensor}-pp{pipeline}-dp{data}-z{zero}" + ("-sequence" if sequence else "")


def layout(mix):
    tensor, pipeline, _, zero, sequence = mix
    return {
        "parallel__tensor": tensor,
        "parallel__pipeline": pipeline,
        "parallel__sequence": sequence,
        "parallel__zero": zero,
    }


def ranks(mix):
    return mix[0] * mix[1] * mix[2]


def assert_close(one, other, tolerance):
    there = full_state(other)
    for part, values in full_state(one).items():
        scale = values.abs().max().clamp_min(1e-8)
        assert ((values - there[part]).abs().max() / scale) < tolerance, part


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """One process with ZeRO 0, and the same run under every mix; one pool of ranks for each world size."""
    folder = tmp_path_factory.mktemp("runs")
    pools = {1: [pretrain(folder / "one", 0, STEPS)]}
    for mix in MIXES:
        pools.setdefault(ranks(mix), []).append(pretrain(folder / name(mix), 1, STEPS, **layout(mix)))
    for zero in (1, 2, 3):
        pools[2].append(pretrain(folder / f"bf16-z{zero}", zero, 3, precision="bf16"))
    pools[2].append(pretrain(folder / "full", 3, STEPS, execution__recompute="full"))
    pools[2].append(pretrain(folder / "selective", 2, STEPS, execution__recompute="selective"))
    pools[2].append(pretrain(folder / "offload-1", 1, STEPS, parallel__offload="optimizer"))
    pools[2].append(pretrain(folder / "offload-3", 3, STEPS, parallel__offload="all"))
    pools[2].append(
        pretrain(folder / "every-2", 1, STEPS, execution__recompute="full", execution__recompute_every=2)
    )
    pools[4].append(pretrain(folder / "node", 3, STEPS, parallel__node=2))
    split = {"parallel__tensor": 2, "parallel__pipeline": 2, "parallel__sequence": True}
    pools[4].append(pretrain(folder / "split-selective", 1, STEPS, **split, execution__recompute="selective"))
    for world, jobs in pools.items():
        run_jobs(jobs, world, folder)
    return folder


@pytest.mark.parametrize("mix", [*map(name, MIXES), *SWITCHES])
def test_equals_one_process(runs, mix):
    for number in ("train/nats_per_token", "train/gradient_norm", "heldout/nats_per_token"):
        one, other = metrics(runs / "one", number), metrics(runs / mix, number)
        assert len(one) >= 2
        assert torch.allclose(one, other, rtol=1e-5), number
    # Adam divides by a root: where a gradient is all rounding, so is its direction.
    assert_close(runs / "one", runs / mix, 2e-4)


def test_gradients_were_clipped(runs):
    assert (metrics(runs / "one", "train/gradient_norm") > 0.5).all()


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_bf16_stays_near_fp32(runs, zero):
    one = metrics(runs / "one", "train/nats_per_token")[:3]
    assert torch.allclose(one, metrics(runs / f"bf16-z{zero}", "train/nats_per_token"), rtol=1e-2)


def test_goes_on_at_any_other_topology(runs, tmp_path):
    """One run: tp 2 pp 2 dp 2, then one rank with ZeRO 3, then dp 2 with ZeRO 0, then tp 4 with ZeRO 2."""
    folder = tmp_path / "run"
    steps = iter((2, 3, 5, STEPS))
    for mix in ((2, 2, 2, 1, True), (1, 1, 1, 3, False), (1, 1, 2, 0, False), (4, 1, 1, 2, True)):
        run_jobs([pretrain(folder, 1, next(steps), **layout(mix))], ranks(mix), tmp_path)
    assert torch.allclose(
        metrics(runs / "one", "train/nats_per_token"), metrics(folder, "train/nats_per_token"), rtol=1e-5
    )
    assert_close(runs / "one", folder, 2e-4)


def test_state_reshards_bit_for_bit(runs, tmp_path):
    """Loaded and saved again at another topology, not a bit of master or moments differs."""
    first = latest(runs / name(MIXES[-1]) / "checkpoints")
    assert first is not None
    there = first.folder
    chain = [
        (4, 1, 1, 3, True),
        (1, 2, 2, 1, False),
        (2, 2, 1, 1, True),
        (1, 1, 2, 0, False),
        (1, 1, 2, 2, False),
    ]
    for number, mix in enumerate(chain):
        target = tmp_path / str(number) / "checkpoints"
        precision = "bf16" if number == 4 else "fp32"  # masters and moments stay float32
        tree = config(tmp_path / "x", 1, STEPS, **layout(mix), precision=precision)
        run_jobs(
            [{"do": "resave", "config": tree, "from": str(there), "to": str(target)}], ranks(mix), tmp_path
        )
        there = target / there.name
    start = full_state(runs / name(MIXES[-1]))
    for number in range(len(chain)):
        again = full_state(tmp_path / str(number) / "checkpoints")
        assert start.keys() == again.keys()
        assert all(torch.equal(values, again[part]) for part, values in start.items())
