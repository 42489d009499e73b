"""A mixture of experts against a dense loop over all experts, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from megarc.config import build
from megarc.errors import UserError
from megarc.model import ModelConfig, cost_of, initialise, named_state
from megarc.model.feed_forward.experts import Experts, Tally
from megarc.model.feed_forward.experts.dispatch import Dispatch
from megarc.model.feed_forward.experts.grouped_matmul import grouped_matmul
from megarc.parallel import TensorParallel
from megarc.window import Window


def config(**keys):
    experts = {"count": 5, "active": 2, "width": 6, "balance": "none", **keys}
    return ModelConfig(layers=2, hidden=7, heads=1, head_dim=4, vocabulary=11, experts=experts)


def layer(seed=0, std=0.7, **keys):
    one = config(**keys)
    built = Experts(one, TensorParallel()).double()
    initialise(built, one.model_copy(update={"initial_std": std}), seed)
    return built


def rows(batch=2, count=5, seed=1):
    return torch.randn(batch, count, 7, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def dense(built, x):
    """Each row through every expert, weighted by 0 where it is not chosen: no sort, no dispatch."""
    keys, flat = built.router.keys, x.flatten(0, 1)
    logits = flat @ built.router.weight.T
    scores = logits.softmax(-1) if keys.scores == "softmax" else logits.sigmoid()
    ranked = scores.detach() + (built.router.balance.double() if keys.balance == "bias" else 0)
    weights = torch.zeros_like(scores)
    for row in range(len(flat)):
        best = sorted(range(keys.count), key=lambda e: (-ranked[row, e].item(), e))[: keys.active]
        own = scores[row, best]
        own = own / own.sum() if keys.normalised else own
        weights = weights.index_put((torch.full((len(best),), row), torch.tensor(best)), own * keys.scale)
    up = built.gate_up.weight.view(keys.count, 2, -1, 7)
    down = built.down.weight.view(keys.count, 7, -1)
    out = sum(
        weights[:, e, None] * (F.silu(flat @ up[e, 0].T) * (flat @ up[e, 1].T)) @ down[e].T
        for e in range(keys.count)
    )
    if keys.shared:
        gate, inner = (flat @ built.shared_gate_up.weight.T).chunk(2, -1)
        out = out + (F.silu(gate) * inner) @ built.shared_down.weight.T
    return out.view_as(x)


KEYS = [
    {},
    {"active": 1},
    {"active": 5},
    {"scores": "sigmoid", "scale": 2.5, "shared": 2},
    {"normalised": False, "shared": 1},
    {"balance": "bias", "count": 8, "active": 3, "width": 3},
]


@pytest.mark.parametrize("keys", KEYS, ids=str)
def test_equals_a_dense_loop_over_experts(keys):
    built, x = layer(**keys), rows().requires_grad_()
    if built.router.balance is not None:
        built.router.balance.copy_(torch.linspace(0.3, -0.3, built.router.keys.count))
    ours, theirs = built(x), dense(built, x)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    parameters = [x, *built.parameters()]
    upstream = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, parameters, upstream),
        torch.autograd.grad(theirs, parameters, upstream),
        strict=True,
    ):
        assert torch.allclose(mine, other, rtol=1e-11, atol=1e-12)


def test_an_expert_without_rows():
    built, x = layer(balance="bias", active=1), rows()
    built.router.balance.copy_(torch.tensor([0.0, 9.0, -9.0, 9.0, -9.0]))
    _, _, counts = built.router(x)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0] and counts.sum() == 10
    assert torch.allclose(built(x), dense(built, x), rtol=1e-12, atol=1e-13)
    built(x).sum().backward()
    assert (built.gate_up.weight.grad.view(5, -1)[0] == 0).all()


def test_equal_scores_go_to_the_lowest_number():
    built, x = layer(active=3), rows()
    torch.nn.init.zeros_(built.router.weight)
    chosen, weights, _ = built.router(x)
    assert (chosen == torch.tensor([0, 1, 2])).all() and torch.allclose(weights, torch.tensor(1 / 3).double())


def test_rows_of_an_expert_keep_their_order():
    chosen = torch.tensor([[1, 0], [0, 2], [1, 0]])
    dispatch = Dispatch.of(chosen)
    assert dispatch.order.tolist() == [1, 2, 5, 0, 4, 3]
    x = torch.arange(3.0)[:, None]
    assert dispatch.spread(x)[:, 0].tolist() == [0, 1, 2, 0, 2, 1]
    assert torch.equal(dispatch.collect(dispatch.spread(x)), 2 * x)


@pytest.mark.parametrize("sizes", [(3, 0, 5, 1), (0, 0, 0, 0), (0, 9, 0, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_grouped_product_is_a_loop_of_products(sizes, dtype):
    torch.manual_seed(0)
    x = torch.randn(sum(sizes), 5).to(dtype).requires_grad_()
    weight = torch.randn(4, 3, 5).to(dtype).requires_grad_()
    out = grouped_matmul(x, weight, torch.tensor(sizes))
    loop = torch.cat([part @ one.T for part, one in zip(x.split(sizes), weight, strict=True)])
    assert torch.equal(out, loop)
    upstream = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad(one, (x, weight), upstream, allow_unused=True) for one in (out, loop))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-6 if dtype != torch.bfloat16 else 0.02)


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_penalties_and_counts(scores):
    """The gradients of both penalties are those of a mean over windows, and rows are counted once."""
    built, x = layer(balance="loss", loss_weight=0.3, router_z_loss=0.2, scores=scores), rows(3)
    built.router.tally = Tally(share=1 / 3)
    built(x).square().sum().backward()
    got = built.router.weight.grad.clone()
    built.zero_grad()
    built.router.tally = None
    logits = x @ built.router.weight.T
    shares = logits.softmax(-1) if scores == "softmax" else F.normalize(logits.sigmoid(), p=1, dim=-1)
    chosen = shares.topk(2).indices
    used = F.one_hot(chosen, 5).sum(2).double().mean(1) / 2
    balance = (5 * used * shares.mean(1)).sum(-1)
    z_loss = logits.logsumexp(-1).square().mean(1)
    (built(x).square().sum() + (0.3 * balance + 0.2 * z_loss).mean()).backward()
    assert torch.allclose(got, built.router.weight.grad, rtol=1e-10)
    built.router.tally = tally = Tally(share=1 / 3)
    with torch.no_grad():
        built(x)
    assert not tally.sums.numel()
    built(x).sum().backward()
    counts, (_, told, z, given, samples) = tally.sums[:5], tally.sums[5:]
    assert given == counts.sum()
    assert torch.equal(counts, F.one_hot(chosen, 5).sum((0, 1, 2)).double()) and samples == 3
    assert torch.allclose(torch.stack((told, z)), torch.stack((balance.sum(), z_loss.sum())))


def test_state_stays_float32_and_is_named():
    built = layer(balance="bias")
    built.router.balance += 0.1234567
    assert [name for name, _ in named_state(built.to(torch.bfloat16))] == ["router.balance"]
    assert built.router.balance.dtype == torch.float32 and built.router.balance[0] == torch.tensor(0.1234567)


def test_cost_counts_active_and_all_parameters():
    one = config(shared=1, every=2)
    cost = cost_of(one, Window.plain(4))
    dense_one = cost_of(one.model_copy(update={"experts": None}), Window.plain(4))
    expert = 3 * 7 * 6
    ffn = 3 * 7 * one.width_of_ffn
    assert cost.parameters == dense_one.parameters - ffn + 6 * expert + 5 * 7
    assert cost.active_parameters == cost.parameters - 3 * expert
    assert cost.feed_forward_flops == 4 * 2 * (ffn + 3 * expert + 5 * 7)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"active": 9}, "use at most 8"),
        ({"every": 5}, "leave none of the 4 layers"),
        ({"count": 1}, "count"),
    ],
)
def test_bad_input(keys, words):
    with pytest.raises(UserError, match=words):
        build(ModelConfig, {"experts": keys}, "test")
