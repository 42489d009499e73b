"""The trace of a micro-batch against closed forms: FLOPs, collectives, and how sizes grow with the micro-batch."""

import pytest
import torch

from megarc.config import build
from megarc.model import cost_of, footprint
from megarc.plan.device import find_device
from megarc.plan.work import Traces
from megarc.train import RunConfig

MODEL = {"layers": 3, "hidden": 64, "heads": 4, "kv_heads": 2, "vocabulary": 500, "tied": False}
WINDOW = {"recent": 128, "causal": 384, "stride": 256}  # more rows than a CPU takes whole
ROWS = 512


def traces(device="h100-80g", **keys):
    config = build(RunConfig, {"model": MODEL, "window": WINDOW, "batch": {"size": 64}, **keys}, "test")
    return config, Traces(config, find_device(device))


def flops(work, kind, backward=None):
    def of(operations):
        return sum(one.flops for one in operations if one.kind == kind and backward in (None, one.backward))

    return of(work.bare) + sum(count * (of(block.one) - of(block.none)) for count, block in work.blocks)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_products_and_attention_are_the_models_cost(recompute):
    config, traced = traces()
    work, cost = traced.work(1, False, recompute, 2), cost_of(config.model, config.window.build())
    again = recompute == "full"
    # Three passes of each product. With full recomputation the blocks' own come once more, but for the last: what it
    # gives is not needed.
    more = again * (cost.matrix_flops - cost.feed_forward_flops // 3)
    assert flops(work, "product") == 2 * (3 * cost.matrix_flops + more + 3 * cost.head_flops)
    # Attention with exactly the allowed pairs: five products backward instead of two forward.
    assert flops(work, "attention") == 2 * (1 + again + 2.5) * cost.attention_flops
    assert flops(work, "product", backward=False) == 2 * (cost.matrix_flops + 3 * cost.head_flops)


@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_products_of_experts_are_those_that_rows_use(recompute):
    experts = {"count": 4, "active": 2, "shared": 1, "width": 24, "dense_first": 1}
    config, traced = traces(model={**MODEL, "experts": experts})
    work, cost = traced.work(1, False, recompute, 2), cost_of(config.model, config.window.build())
    assert len(work.blocks) == 2  # the dense layer, and two with experts
    assert flops(work, "product") == pytest.approx(2 * 3 * (cost.matrix_flops + cost.head_flops), rel=1e-6)


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_rows_go_to_experts_on_other_ranks_and_back(recompute):
    """Rows, their weights, and results; their gradients likewise: no other product, and no other attention."""
    experts = {"count": 4, "active": 2, "width": 24, "dense_first": 1}
    _, traced = traces(model={**MODEL, "experts": experts})
    works = {ranks: traced.work(1, False, recompute, 2, expert=ranks) for ranks in (1, 2)}
    for kind in ("product", "attention"):
        assert flops(works[2], kind) == pytest.approx(flops(works[1], kind), rel=1e-6)
    (count, block) = max(works[2].blocks, key=lambda one: len(one[1].one))
    sent = sorted(one.read_written for one in block.one if one.kind == "exchange")
    rows, again = 2 * ROWS * experts["active"], recompute == "full"
    # Counts go to experts of 64-bit numbers, forward alone; what is computed again sends again, but for the last.
    assert count == 2 and sent.count(4 * 8) == 1 + again
    assert sent.count(4 * rows) == 2 + again
    assert sent.count(4 * rows * MODEL["hidden"]) in (4 + again, 4 + 2 * again)
    assert not any(one.kind == "exchange" for _, one in works[1].blocks for one in one.one)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_of_a_long_window_few_chunks_of_the_head_are_traced(count):
    """The bytes that it holds are those of a trace of all of them."""
    config, traced = traces(window={"recent": 32, "causal": 96}, execution={"head_rows": 8})
    exact = footprint(
        config.model, config.execution, config.window.build(), count, torch.float32, torch.device("cpu")
    )
    assert traced.work(1, False, "none", count).footprint == exact


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_tensor_ranks_gather_and_scatter_as_published(recompute):
    """Korthikanti et al. 2022: four gathers and four scatters a layer; what is computed again gathers again."""
    _, traced = traces()
    work = traced.work(2, True, recompute, 1)
    ((count, block),) = work.blocks
    whole = ROWS * MODEL["hidden"] * 4  # float32

    def sent(operations, kind):
        return sum(one.kind == kind and one.read_written == whole for one in operations)

    assert count == MODEL["layers"]
    again = 2 if recompute == "full" else 0
    assert sent(block.one, "gather") - sent(block.none, "gather") == 4 + again
    assert sent(block.one, "scatter") - sent(block.none, "scatter") == 4 + (again and 1)


def test_sizes_grow_by_equal_steps():
    """A GPU's micro-batch of 5 comes from those of 1 to 3; a CPU's is traced as it is. Both are the same work."""
    _, scaled = traces()
    _, exact = traces("cpu")
    few, whole = scaled.work(1, False, "selective", 5), exact.work(1, False, "selective", 5)
    for kind in ("product", "attention"):
        assert flops(few, kind) == pytest.approx(flops(whole, kind))
    assert few.footprint.kept == pytest.approx(whole.footprint.kept, rel=0.01)


def test_compiled_code_moves_less_and_computes_the_same():
    def moved(work):
        return sum(one.read_written for _, block in work.blocks for one in block.one if one.kind == "memory")

    eager, compiled = (
        traces(execution={"compile": way})[1].work(1, False, "none", 2) for way in (False, True)
    )
    assert flops(eager, "product") == flops(compiled, "product")
    assert moved(compiled) < 0.6 * moved(eager)
