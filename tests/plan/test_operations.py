"""The trace of a micro-batch against closed forms: FLOPs, collectives, and how sizes grow with the micro-batch."""

import pytest

from megarc.config import build
from megarc.errors import UserError
from megarc.model import cost_of
from megarc.plan.device import find_device
from megarc.plan.search import Planner
from megarc.plan.work import Traces
from megarc.train import RunConfig

MODEL = {"layers": 3, "hidden": 64, "heads": 4, "kv_heads": 2, "vocabulary": 500, "tied": False}
WINDOW = {"recent": 32, "causal": 96, "stride": 64}


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


def test_experts_on_other_data_ranks_are_not_predicted():
    with pytest.raises(UserError, match=r"parallel\.expert 2: predictions and dry runs"):
        Planner(traces(model={**MODEL, "experts": {}}, parallel={"expert": 2})[0], find_device("h100-80g"))


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_tensor_ranks_gather_and_scatter_as_published(recompute):
    """Korthikanti et al. 2022: four gathers and four scatters a layer; what is computed again gathers again."""
    _, traced = traces()
    work = traced.work(2, True, recompute, 1)
    ((count, block),) = work.blocks
    whole = 128 * MODEL["hidden"] * 4  # float32

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
