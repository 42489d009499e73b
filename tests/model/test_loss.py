"""Row losses and their weighted sum against the plain formula in float64."""

import torch
from torch.autograd import gradcheck

from megarc.model import row_loss, weighted_sum


def test_against_the_plain_formula():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 11, dtype=torch.float64)
    targets = torch.randint(0, 11, (2, 5))
    weights = torch.rand(2, 5, dtype=torch.float64)
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    expected = torch.zeros((), dtype=torch.float64)
    for sample in range(2):
        for row in range(5):
            nll = -probabilities[sample, row, targets[sample, row]].log()
            log_z = logits[sample, row].exp().sum().log()
            expected += weights[sample, row] * (nll + 0.3 * log_z**2)
    assert torch.allclose(weighted_sum(row_loss(logits, targets), weights, 0.3), expected, rtol=1e-12)


def test_gradients():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.randint(0, 7, (2, 3)), torch.rand(2, 3, dtype=torch.float64)
    assert gradcheck(lambda x: weighted_sum(row_loss(x, targets), weights, 0.1), logits)


def test_padding_at_minus_infinity_takes_no_probability():
    logits = torch.randn(1, 4, 8)
    padded = torch.cat((logits, torch.full((1, 4, 3), float("-inf"))), -1).requires_grad_()
    targets = torch.randint(0, 8, (1, 4))
    loss = row_loss(padded, targets)
    assert torch.equal(loss.nll, row_loss(logits, targets).nll)
    loss.nll.sum().backward()
    assert (padded.grad[..., 8:] == 0).all() and padded.grad.isfinite().all()


def test_bf16_logits_are_summed_in_float32():
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 50_000).bfloat16()
    targets = torch.randint(0, 50_000, (1, 2))
    exact = row_loss(logits.double(), targets).nll
    assert torch.allclose(row_loss(logits, targets).nll.double(), exact, atol=1e-5)
