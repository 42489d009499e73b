"""ZeRO 1 on one rank runs without flat buffers, and is ZeRO 1 to everybody else: keys, checkpoints, other ranks."""

import pytest
import torch
from support.ranks import run_jobs
from support.runs import config, full_state, metrics, pretrain

from megarc.config import build
from megarc.train import RunConfig

STEPS = 4


def settings(**keys):
    return build(RunConfig, config("unused", 1, STEPS, **keys), "test")


@pytest.mark.parametrize(
    ("replicas", "keys", "stage"),
    [
        (1, {}, 0),
        (2, {}, 1),
        (1, {"precision": "bf16"}, 1),
        (1, {"parallel": {"zero": 2}}, 2),
        (1, {"parallel": {"offload": "optimizer"}}, 1),
        (1, {"deepspeed": {"zero_optimization": {"reduce_bucket_size": 1000}}}, 1),
    ],
)
def test_which_stage_an_engine_runs(replicas, keys, stage):
    asked = settings(**keys)
    assert asked.shared_among(replicas).parallel.zero == stage
    assert asked.shared_among(replicas).model == asked.model


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One rank at stage 0, 1, and with flat buffers, by a key of DeepSpeed's; then two ranks go on, and one again."""
    folder = tmp_path_factory.mktemp("alone")
    flat = {"deepspeed": {"zero_optimization": {"reduce_bucket_size": 100_000}}}
    alone = [
        pretrain(folder / "stage-0", 0, STEPS),
        pretrain(folder / "flat", 1, STEPS, **flat),
        pretrain(folder / "alone", 1, 3 * STEPS),
        pretrain(folder / "moved", 1, STEPS),
    ]
    run_jobs(alone, 1, folder)
    run_jobs([pretrain(folder / "moved", 1, 2 * STEPS)], 2, folder)
    run_jobs([pretrain(folder / "moved", 1, 3 * STEPS)], 1, folder)
    return folder


def test_one_rank_at_stage_1_is_stage_0_bit_for_bit(runs):
    ours, stage_0 = metrics(runs / "alone", "loss")[:STEPS], metrics(runs / "stage-0", "loss")
    assert torch.equal(ours, stage_0)


def test_flat_buffers_train_the_same_model(runs):
    assert_close(full_state(runs / "stage-0"), full_state(runs / "flat"))


def test_two_ranks_go_on_from_it_and_it_from_them(runs):
    assert_close(full_state(runs / "alone"), full_state(runs / "moved"))


def assert_close(one, other):
    assert one.keys() == other.keys()
    for part, values in one.items():
        scale = values.abs().max().clamp_min(1e-8)
        assert (values - other[part]).abs().max() / scale < 1e-5, part
