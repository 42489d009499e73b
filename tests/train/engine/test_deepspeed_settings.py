"""DeepSpeed's dictionary: derived once, never contradicted."""

import pytest

from megarc.config import build
from megarc.errors import UserError
from megarc.train import RunConfig
from megarc.train.engine.deepspeed_settings import bucket, deepspeed_settings


def settings(**tree):
    return deepspeed_settings(build(RunConfig, tree, "test"), micro_batch=2, micro_batches=4)


def test_derived():
    derived = settings(batch={"size": 16}, optimizer={"clip": 0.0}, parallel={"zero": 3})
    assert derived["train_batch_size"] == 16
    assert derived["train_micro_batch_size_per_gpu"] == 2 and derived["gradient_accumulation_steps"] == 4
    assert derived["gradient_clipping"] == 0.0
    assert derived["zero_optimization"]["stage"] == 3
    assert "bf16" not in derived


def test_a_sample_counts_once_for_each_context_rank():
    """DeepSpeed holds its batch to be micro-batch x accumulation x the ranks with the same weights."""
    tree = build(RunConfig, {"batch": {"size": 16}, "parallel": {"context": 4}}, "test")
    assert deepspeed_settings(tree, 2, 4, context=4)["train_batch_size"] == 64


def test_an_expert_adds_keys():
    passed = settings(
        deepspeed={"zero_optimization": {"reduce_bucket_size": 1000}, "comms_logger": {"enabled": True}}
    )
    assert passed["zero_optimization"]["reduce_bucket_size"] == 1000
    assert passed["zero_optimization"]["stage"] == 1
    assert passed["comms_logger"] == {"enabled": True}


def test_the_bucket_is_no_larger_than_what_a_rank_has():
    """DeepSpeed allocates it whole; a size that the run passes on is kept."""
    assert bucket(build(RunConfig, {}, "test"), 1000.0) == 1000
    assert bucket(build(RunConfig, {}, "test"), 7e9) == 500_000_000
    passed = {"zero_optimization": {"reduce_bucket_size": 300}}
    assert bucket(build(RunConfig, {"deepspeed": passed}, "test"), 1000.0) == 300


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"train_batch_size": 3}, "deepspeed.train_batch_size"),
        ({"zero_optimization": {"stage": 2}}, "deepspeed.zero_optimization.stage"),
        ({"zero_optimization": {"round_robin_gradients": True}}, "deepspeed.zero_optimization.round_robin"),
    ],
)
def test_a_contradiction_is_refused(extra, key):
    with pytest.raises(UserError, match=key):
        settings(deepspeed=extra)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"precision": "bf16", "parallel": {"zero": 0}}, "bf16 with parallel.zero 0"),
        ({"parallel": {"pipeline": 2, "zero": 3}}, "pipeline 2 with parallel.zero 3.*use parallel.zero=1"),
        ({"parallel": {"pipeline": 2, "zero": 0}}, "clips by a wrong norm"),
        ({"parallel": {"pipeline": 9}}, "more than model.layers 4"),
        ({"parallel": {"offload": "optimizer", "zero": 0}}, "needs parallel.zero=1"),
        ({"parallel": {"offload": "all", "zero": 2}}, "needs parallel.zero=3"),
        ({"parallel": {"offload": "optimizer", "pipeline": 2}}, "offload with a pipeline"),
        ({"parallel": {"node": 2, "zero": 2}}, r"ZeRO\+\+ on stage 3"),
        ({"model": {"learned_positions": 8}}, "fewer than the window's 1024 rows"),
        ({"data": {"question_weight": 0.5}}, "data.question_weight is of packed rows"),
        ({"data": {"segment_weights": {"<spare1>": 0.5}}}, "data.segment_weights is of packed rows"),
        (
            {"parallel": {"context": 3}, "window": {"recent": 8, "causal": 8}},
            r"context 3 does not divide the 16 rows of the window.*make window.recent \+ window.causal 15 or 18",
        ),
        (
            {
                "parallel": {"context": 2, "tensor": 4, "sequence": True},
                "window": {"recent": 8, "causal": 12},
            },
            r"context 2 x parallel.tensor 4, which parallel.sequence splits, does not divide the 20 rows.* 16 or 24",
        ),
        ({"parallel": {"context": 2}, "model": {"mixers": "crf"}}, "mixers crf is not supported.*row to row"),
        ({"parallel": {"context": 2}, "execution": {"compile": True}}, "execution.compile is not supported"),
        ({"parallel": {"context": 2}, "execution": {"fp8": True}}, "execution.fp8 is not supported"),
        ({"parallel": {"context": 2, "offload": "optimizer"}}, "parallel.offload is not supported"),
        ({"parallel": {"context": 2, "node": 2, "zero": 3}}, "parallel.node is not supported"),
        (
            {"parallel": {"context": 2, "tensor": 2, "data": 2, "world": 4}},
            "world 4 is not parallel.tensor 2 x parallel.context 2 x parallel.pipeline 1 x parallel.data 2",
        ),
    ],
)
def test_what_the_engine_cannot_do_is_refused(tree, said):
    with pytest.raises(UserError, match=said):
        settings(**tree)
