"""Marginals of the chain against all of its paths, against the gradient of log Z, and at length."""

from itertools import product

import pytest
import torch
from support.mixers import intervals_of

from megarc.model.mixers import chain
from megarc.model.mixers.crf import marginals
from megarc.model.mixers.directions import directions


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(chain, "BLOCK", 3)


def drawn(rows, states=3, heads=2, batch=2):
    torch.manual_seed(rows)
    potentials = 2 * torch.randn(batch, heads, rows, states, dtype=torch.float64)
    return potentials.requires_grad_(), (2 * torch.randn(heads, states, states, dtype=torch.float64)).softmax(
        -1
    )


def log_z(potentials, transition):
    """Row by row, by log-sum-exp; the state before the first row is uniform."""
    past = transition.mean(1).log() + potentials[:, :, 0]
    for row in range(1, potentials.shape[2]):
        past = torch.logsumexp(past[..., :, None] + transition.log(), -2) + potentials[:, :, row]
    return past.logsumexp(-1)


def by_log_z(potentials, transition, recent):
    """Of R the gradient of its log Z; of a row of C that of the log Z of all rows up to it."""
    rows, found = potentials.shape[2], []
    for row in range(rows):
        given = potentials[:, :, : max(recent, row + 1)]
        (gradient,) = torch.autograd.grad(log_z(given, transition).sum(), potentials, create_graph=True)
        found.append(gradient[:, :, row])
    return torch.stack(found, 2)


def test_marginals_of_all_paths():
    potentials, transition = drawn(4)
    weights = torch.zeros_like(potentials)
    for path in product(range(3), repeat=4):
        weight = transition.mean(1)[:, path[0]].expand(2, 2)
        for row, state in enumerate(path):
            weight = weight * potentials[:, :, row, state].exp()
            if row:
                weight = weight * transition[:, path[row - 1], state]
        for row, state in enumerate(path):
            weights[:, :, row, state] += weight
    torch.testing.assert_close(
        marginals(potentials, transition, 4)[0], weights / weights.sum(-1, keepdim=True)
    )


@pytest.mark.parametrize("recent", [0, 2, 7, 31])
@pytest.mark.parametrize("rows", [1, 3, 10, 31])
def test_marginals_are_gradients_of_log_z(rows, recent, small_blocks):
    """31 rows are 11 blocks of 3, in 4 groups, in 2. Gradients through the marginals too."""
    recent = min(recent, rows)
    potentials, transition = drawn(rows)
    raw = transition.log().detach().requires_grad_()
    where = directions(recent, rows)
    found, last = marginals(potentials, raw.softmax(-1), where)
    expected = by_log_z(potentials, raw.softmax(-1), recent if recent > 1 else 0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(last, expected[:, :, -1])
    weights = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), [potentials, raw]) for x in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_rows_that_follow(small_blocks):
    potentials, transition = drawn(31)
    whole, _ = marginals(potentials, transition, 5)
    _, last = marginals(potentials[:, :, :11], transition, 5)
    torch.testing.assert_close(marginals(potentials[:, :, 11:], transition, 0, [last])[0], whole[:, :, 11:])


def test_documents_are_chains_of_their_own(small_blocks):
    potentials, transition = drawn(13)
    documents = [[(5, 3), (1, 0), (1, 1), (6, 4)], [(2, 2), (11, 0)]]
    found, _ = marginals(potentials, transition, directions(intervals_of(documents), 13))
    for sample, listed in enumerate(documents):
        place = 0
        for rows, recent in listed:
            alone = potentials[sample : sample + 1, :, place : place + rows]
            expected, _ = marginals(alone, transition, directions(recent, rows))
            torch.testing.assert_close(found[sample : sample + 1, :, place : place + rows], expected)
            place += rows


def test_extreme_potentials_over_8192_rows_are_finite():
    """Potentials at both bounds that change with every row, and transitions that forbid the change."""
    signs = torch.randint(0, 2, (1, 1, 8192, 16), generator=torch.manual_seed(0)).float()
    raw = (1e4 * (2 * signs - 1)).requires_grad_()
    scores = (1e4 * torch.randn(1, 16, 16)).requires_grad_()
    transition = (chain.bounded(scores) + 11.0 * torch.eye(16)).softmax(-1)
    found, _ = marginals(chain.bounded(raw), transition, 8000)
    (found * torch.randn_like(found)).sum().backward()
    assert all(x.isfinite().all() for x in (found, raw.grad, scores.grad))
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 1, 8192))
