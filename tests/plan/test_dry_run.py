"""The dry run against closed forms: parameters of all ranks, collectives by the published formulas."""

import pytest

from megarc.config import build
from megarc.errors import UserError
from megarc.model import cost_of
from megarc.plan import dry_run, explain_memory
from megarc.train import RunConfig, find_checkpoint

SHAPE = {"layers": 4, "hidden": 32, "heads": 4, "vocabulary": 300, "tied": False}
B, N, H = 2, 16, 32


def config(model=SHAPE, **parallel):
    return build(
        RunConfig,
        {
            "model": model,
            "window": {"recent": 8, "causal": 8},
            "batch": {"size": 16, "micro": B},
            "parallel": parallel,
        },
        "test",
    )


@pytest.mark.parametrize(
    ("tensor", "pipeline", "world"), [(1, 1, 2), (2, 1, 4), (1, 4, 4), (2, 2, 8), (4, 2, 8)]
)
def test_parameters_of_all_ranks_are_the_closed_form(tensor, pipeline, world):
    tree = config(tensor=tensor, pipeline=pipeline)
    data = world // (tensor * pipeline)
    held = sum(dry_run(tree, world, rank).parameters for rank in range(world)) / data
    # norms, whole on every tensor rank
    replicated = (2 * SHAPE["layers"] + 1) * SHAPE["hidden"] * (tensor - 1)
    assert held - replicated == cost_of(tree.model, tree.window.build()).parameters


@pytest.mark.parametrize("sequence", [False, True])
def test_tensor_collectives_are_four_all_reduces_a_layer_and_micro_batch(sequence):
    """Narayanan et al. 2021, section 3.2; Korthikanti et al. 2022: as gathers and scatters, the same bytes."""
    found = dry_run(config(tensor=2, sequence=sequence), 2, 0)
    micro_batches = 16 // B
    rows = {(one.what, one.elements): one.times for one in found.collectives if one.group == "tensor"}
    whole = B * N * H
    if sequence:
        # One more pair for embedding and head.
        assert rows["allgather_base", whole] == (4 * SHAPE["layers"] + 2) * micro_batches
        assert rows["reduce_scatter_base", whole] == (4 * SHAPE["layers"] + 2) * micro_batches
    else:
        assert rows["allreduce", whole] == (4 * SHAPE["layers"] + 2) * micro_batches


@pytest.mark.parametrize(
    ("context", "tensor", "pipeline", "recompute", "gathers"),
    [(2, 1, 1, "none", 1), (4, 2, 1, "full", 2), (2, 2, 2, "selective", 2)],
)
def test_context_gathers_keys_and_values_once_a_layer(context, tensor, pipeline, recompute, gathers):
    """Of a micro-batch of B windows of N rows: 2 B N g d elements, of this tensor rank's g key heads.

    Once more where a block is computed again; in the backward pass their gradients are summed and scattered.
    """
    tree = config(context=context, tensor=tensor, pipeline=pipeline, sequence=tensor > 1)
    execution = tree.execution.model_copy(update={"recompute": recompute})
    ranks = context * tensor * pipeline
    for rank in (0, ranks - 1):
        found = dry_run(tree.model_copy(update={"execution": execution}), ranks, rank)
        rows = {(one.what, one.elements): one for one in found.collectives if one.group == "context"}
        whole = 2 * B * N * H // tensor  # the model has as many key heads as heads
        times = SHAPE["layers"] // pipeline * 16 // B
        assert {key: one.times for key, one in rows.items()} == {
            ("allgather_base", whole): gathers * times,
            ("reduce_scatter_base", whole): times,
        }
        assert all(one.ranks == context for one in rows.values())
        assert any(one.group == "context x data" and one.ranks == context for one in found.collectives)
        if tensor > 1:
            split = [one.elements for one in found.collectives if one.group == "tensor"]
            assert set(split) <= {B * N // context * H, *range(1, 600)}, "rows of a context rank"


def test_a_context_rank_keeps_its_share_of_activations():
    """Hidden rows, and what a block keeps but for the window's keys and values."""
    one = dry_run(config(), 1, 0).activation_bytes
    two = dry_run(config(context=2), 2, 0).activation_bytes
    # keys and values of all rows, of which one rank has only its own
    kept = SHAPE["layers"] * 2 * B * N * H * 4
    numbers = 1024  # of rows, places and intervals
    assert one / 2 < two <= one / 2 + kept + numbers


@pytest.mark.parametrize(("zero", "factor"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_data_traffic_is_zeros(zero, factor):
    """Elements a step with one micro-batch, an all-reduce counted as two passes (1910.02054, section 7)."""
    tree = config(zero=zero).model_copy(update={"batch": config().batch.model_copy(update={"size": 2 * B})})
    found = dry_run(tree, 2, 0)
    passes = {"allreduce of gradients": 2, "reduce_scatter of gradients": 1, "allgather of weights": 1}
    total = sum(
        passes[one.what] * one.times * one.elements for one in found.collectives if one.group == "data"
    )
    assert total == factor * found.parameters


@pytest.mark.parametrize(
    ("zero", "bytes_each"), [(0, 16), (1, 4 + 2 + 12 / 4), (2, 2 + 4 / 4 + 12 / 4), (3, 18 / 4)]
)
def test_memory_is_zeros(zero, bytes_each):
    """Bytes a parameter in bf16 with float32 gradients: 2 + 4 + 12, shared out over 4 data ranks."""
    if zero == 0:
        bytes_each = 4 + 4 + 8  # fp32: bf16 at stage 0 is refused
    precision = "fp32" if zero == 0 else "bf16"
    found = dry_run(config(zero=zero).model_copy(update={"precision": precision}), 4, 0)
    total = found.weight_bytes + found.gradient_bytes + found.optimizer_bytes
    assert total == pytest.approx(bytes_each * found.parameters)


@pytest.mark.parametrize("expert", [2, 4])
def test_experts_on_other_ranks(expert):
    """Each rank has its part of them, sends rows and results forward and backward, and reduces with those alike."""
    experts = {"count": 4, "active": 2, "width": 24, "dense_first": 2}
    tree = config(model={**SHAPE, "experts": experts}, expert=expert)
    found = dry_run(tree, 4, 1)
    routed, micro_batches = 2 * 4 * 3 * H * 24, 16 // 4 // B
    whole = cost_of(tree.model, tree.window.build()).parameters
    assert found.parameters == whole - routed + routed // expert
    rows = {(one.what, one.group, one.elements): (one.ranks, one.times) for one in found.collectives}
    assert rows["alltoall_base", "expert", B * N * 2 * H] == (expert, 2 * 4 * micro_batches)
    alike = [one for one in found.collectives if one.group == "same experts"]
    assert [one.elements for one in alike] == ([routed // expert] * 2 if expert < 4 else [])
    assert rows["allgather of weights", "data", whole - routed] == (4, 1)
    assert found.optimizer_bytes == 8 * whole / 4
    with pytest.raises(UserError, match=r"parallel\.expert 4 does not divide the 2 data ranks"):
        dry_run(config(model=tree.model.model_dump(), expert=4), 2, 0)


def test_routers_sum_rows_of_experts():
    """Of a window over its context ranks, in each pass of a block; of a step over all that have the same weights."""
    experts = {"count": 4, "active": 2, "width": 24, "dense_first": 2}
    tree = config(model={**SHAPE, "experts": experts}, context=2)
    execution = tree.execution.model_copy(update={"recompute": "full"})
    found = dry_run(tree.model_copy(update={"execution": execution}), 4, 1)
    rows = {(one.what, one.group, one.elements): (one.ranks, one.times) for one in found.collectives}
    layers, micro_batches = 2, 16 // 2 // B
    assert rows["allreduce", "context", B * 4] == (2, 2 * layers * micro_batches)
    assert rows["allreduce of experts' rows", "context x data", layers * (4 + 5)] == (4, 1)


def test_muon_moves_experts_that_ranks_share_out_by_themselves():
    """Two data ranks with different experts: each has its own whole, so none of their matrices travels."""
    model = {**SHAPE, "experts": {"count": 4, "active": 2, "width": 24}}
    tree = config(model=model, expert=2, tensor=2).model_copy(
        update={"optimizer": config().optimizer.model_copy(update={"name": "muon"})}
    )
    parts = {
        one.what: (one.ranks, one.elements) for one in dry_run(tree, 4, 0).collectives if "sent" in one.what
    }
    own = SHAPE["layers"] * 4 * 3 * H * 24 // 4  # of the experts, a half on each expert and tensor rank
    # Of a matrix, the other tensor rank has a half; its owner gets that, and gives as much back.
    assert parts["all_to_all of experts' momenta, sent"] == (4, own // 2)
    assert parts["all_to_all of experts' updates, sent"] == (4, own // 2)
    assert parts["all_to_all of momenta, sent"][1] > 0


def test_the_first_stage_holds_most_micro_batches():
    held = [dry_run(config(pipeline=4), 4, rank).in_flight for rank in range(4)]
    assert held == [4, 3, 2, 1]


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="6 ranks cannot be laid out"):
        dry_run(config(tensor=4), 6, 0)
    with pytest.raises(UserError, match="rank 9 of 8"):
        dry_run(config(), 8, 9)


def test_real_ranks_have_the_same_parameters(tmp_path):
    """The largest part of a real 2 x 2 run's checkpoint, against the dry run's count."""
    from support.ranks import run_jobs
    from support.runs import pretrain

    job = pretrain(tmp_path / "run", 1, 2, parallel__tensor=2, parallel__pipeline=2)
    run_jobs([job], 4, tmp_path)
    tree = {**job["config"], "model": {**job["config"]["model"], "vocabulary": 25}}
    dry = [dry_run(build(RunConfig, tree, "test"), 4, rank).parameters for rank in range(4)]
    fragments = find_checkpoint(tmp_path / "run").fragments()
    stored = sum(box.size for parts in fragments.values() for part in parts for box in part.boxes)
    # On disk each element stands once. Ranks also hold a copy of the tied embedding, on the last stage,
    # and each norm's gain once for every tensor rank.
    embedding = 128 * 32
    gains = 2 * (2 * 32 + 2 * 8) + 32
    assert sum(dry) == stored + embedding + gains


def test_too_little_memory_is_explained_with_what_would_need_less():
    shape = config().model_copy(update={"batch": config().batch.model_copy(update={"size": 64, "micro": 64})})
    told = explain_memory(shape, 1, 0)
    numbers = {line.rsplit(maxsplit=1)[0]: line.split()[-1] for line in told.splitlines() if "." in line}
    assert float(numbers["batch.micro=32"]) < float(numbers["at its most"]), told
    assert "execution.recompute=full" in numbers


def test_a_sliding_window_changes_neither_parameters_nor_traffic():
    """Its intervals of keys are made inside, without values: they are not looked at."""
    tree = config()
    sliding = tree.model_copy(update={"model": tree.model.model_copy(update={"sliding_window": 3})})
    ours, plain = (dry_run(one, 2, 0) for one in (sliding, tree))
    assert (ours.parameters, ours.collectives) == (plain.parameters, plain.collectives)
    # So small a plain window is one call, which keeps its mask.
    assert ours.activation_bytes == pytest.approx(plain.activation_bytes, rel=0.02)
