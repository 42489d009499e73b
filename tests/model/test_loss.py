"""Head and loss in chunks against the plain formula in float64; bytes counted by the allocator."""

import pytest
import torch
from support.allocations import allocations

from megarc.model import Head, head_loss, scored, weighted_sum
from megarc.parallel import TensorParallel

BATCH, ROWS, WIDTH, IDS, TOKENS = 2, 5, 6, 16, 11


def head(**changes):
    return Head(tokens=TOKENS, tensor=TensorParallel(), **changes)


def problem(dtype=torch.float64):
    torch.manual_seed(0)
    hidden = torch.randn(BATCH, ROWS, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.randn(IDS, WIDTH, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(0, TOKENS, (BATCH, ROWS)), torch.rand(BATCH, ROWS, dtype=dtype)


def plain(hidden, weight, targets, weights, z_loss, cap=None):
    """Probabilities by the definition, row by row, on the ids that are tokens."""
    logits = hidden @ weight[:TOKENS].T
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    nll = -probabilities.gather(-1, targets[..., None])[..., 0].log()
    log_z = logits.exp().sum(-1).log()
    return (weights * (nll + z_loss * log_z**2)).sum(), nll, log_z


@pytest.mark.parametrize(
    ("chunk", "compiled", "cap"),
    [(1, False, None), (3, False, 1.5), (10, False, None), (None, False, 30.0), (4, True, None)],
)
def test_equals_the_plain_formula(chunk, compiled, cap):
    hidden, weight, targets, weights = problem()
    expected, nll, log_z = plain(hidden, weight, targets, weights, 0.3, cap)
    wanted = torch.autograd.grad(expected * 0.7, (hidden, weight))
    loss = head_loss(head(chunk=chunk, compile=compiled, cap=cap), hidden, weight, targets, weights, 0.3)
    found = torch.autograd.grad(loss.objective * 0.7, (hidden, weight))
    for one, other in zip((expected, nll, log_z, *wanted), (*loss[:3], *found), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("chunk", "compiled"), [(3, False), (None, False), (4, True)])
def test_without_gradients_it_says_whether_the_likeliest_token_is_the_target(chunk, compiled):
    """Padded ids, which here have the largest logits, are never the likeliest."""
    hidden, weight, targets, weights = problem()
    with torch.no_grad():
        weight[TOKENS:] = 100 * weight[:1]
        best = (hidden @ weight[:TOKENS].T).argmax(-1)
        targets[:, ::2] = best[:, ::2]
        loss = head_loss(head(chunk=chunk, compile=compiled), hidden, weight, targets, weights)
    assert loss.right is not None and torch.equal(loss.right, best == targets) and not loss.right.all()
    assert torch.allclose(scored(loss, weights)[1], weights[best == targets].sum())
    assert head_loss(head(), hidden, weight, targets, weights).right is None


def test_a_second_backward_pass_is_an_error_and_no_wrong_number():
    hidden, weight, targets, weights = problem()
    loss = head_loss(head(), hidden, weight, targets, weights)
    loss.objective.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.objective.backward()


def test_without_weights_every_row_counts_once():
    hidden, weight, targets, _ = problem()
    loss = head_loss(head(), hidden, weight, targets)
    assert torch.allclose(loss.objective, loss.nll.sum())
    assert torch.equal(weighted_sum(loss.nll, None), loss.nll.sum())


def test_padding_takes_no_probability():
    hidden, weight, targets, weights = problem()
    head_loss(head(), hidden, weight, targets, weights).objective.backward()
    assert (weight.grad[TOKENS:] == 0).all() and weight.grad.isfinite().all()


def test_bf16_is_summed_in_float32_over_ids_and_over_chunks():
    torch.manual_seed(0)
    hidden, weight = torch.randn(1, 512, 8).bfloat16(), torch.randn(5000, 8).bfloat16()
    targets = torch.randint(0, 5000, (1, 512))
    many = Head(5000, TensorParallel(), chunk=4)
    results = []
    for dtype in (torch.bfloat16, torch.float64):
        x, w = (tensor.to(dtype, copy=True).requires_grad_() for tensor in (hidden, weight))
        loss = head_loss(many, x, w, targets)
        loss.objective.backward()
        results.append((loss.nll.double(), x.grad.double(), w.grad.double()))
    for (one, exact), allowed in zip(zip(*results, strict=True), (2e-3, 1e-2, 1e-2), strict=True):
        assert (one - exact).norm() / exact.norm() < allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logits_of_a_large_vocabulary_never_exist_whole(dtype):
    """128k ids: bytes of all logits against bytes held at most, forward and backward together."""
    rows, width, ids, chunk = 256, 16, 1 << 17, 8
    hidden = torch.randn(1, rows, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(ids, width, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, ids, (1, rows))
    with allocations() as seen:
        head_loss(
            Head(ids, TensorParallel(), chunk), hidden, weight, targets, z_loss=1e-4
        ).objective.backward()
    gradient = weight.numel() * 4  # float32, and the parameter's own beside it
    logits = 4 * rows * ids
    assert seen.largest <= max(gradient, 4 * chunk * ids)
    assert seen.peak < 2 * gradient + 4 * (4 * chunk * ids) < logits / 3
    assert seen.left >= weight.numel() * weight.itemsize


def test_no_gradient_is_made_where_none_is_wanted():
    hidden, weight, targets, weights = problem()
    with torch.no_grad(), allocations() as seen:
        loss = head_loss(head(), hidden, weight, targets, weights)
    assert not loss.objective.requires_grad
    assert seen.peak < 8 * BATCH * ROWS * IDS * 8


def test_of_equal_logits_the_first_is_the_likeliest():
    """A head of zeros guesses id 0, and no target is right because it ties."""
    hidden, weight = torch.randn(1, 3, 4), torch.zeros(8, 4)
    weight[5:7] = 1.0  # ids 5 and 6 tie where hidden's sum is positive; else ids 0 to 4 and 7 do
    hidden = hidden.abs() * torch.tensor([1.0, 1.0, -1.0])[:, None]
    with torch.no_grad():
        loss = head_loss(Head(8, TensorParallel()), hidden, weight, torch.tensor([[5, 6, 1]]))
        other = head_loss(Head(8, TensorParallel()), hidden, weight, torch.tensor([[6, 5, 0]]))
    assert loss.right is not None and loss.right.tolist() == [[True, False, False]]
    assert other.right is not None and other.right.tolist() == [[False, True, True]]
