"""Marginals of the chain against all of its paths, against the gradient of log Z, and at length."""

from itertools import product

import pytest
import torch
from support.mixers import intervals_of

from megarc.model.mixers import chain
from megarc.model.mixers.directions import directions
from megarc.model.mixers.marginals import marginals


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(chain, "BLOCK", 3)


def drawn(rows, matrices, states=3, heads=2, batch=2):
    """Potentials, transitions before the softmax, and each row's weights of them; with one matrix, none."""
    torch.manual_seed(rows)
    potentials = 2 * torch.randn(batch, heads, rows, states, dtype=torch.float64)
    raw = 2 * torch.randn(heads, matrices, states, states, dtype=torch.float64)
    mixed = (2 * torch.randn(batch, heads, rows, matrices, dtype=torch.float64)).softmax(-1)
    found = [potentials.requires_grad_(), raw.requires_grad_()]
    return [*found, mixed.detach().requires_grad_() if matrices > 1 else None]


def steps(raw, mixed):
    """E_i of every row, [batch or 1, heads, rows or 1, states, states]."""
    each = raw.softmax(-1)
    return each[None] if mixed is None else torch.einsum("bhrk,hkst->bhrst", mixed, each)


def log_z(potentials, into):
    """Row by row, by log-sum-exp; the state before the first row is uniform."""
    into = into.expand(*potentials.shape[:3], *into.shape[3:])
    past = into[:, :, 0].mean(2).log() + potentials[:, :, 0]
    for row in range(1, potentials.shape[2]):
        past = torch.logsumexp(past[..., :, None] + into[:, :, row].log(), -2) + potentials[:, :, row]
    return past.logsumexp(-1)


def by_log_z(potentials, into, recent):
    """Of R the gradient of its log Z; of a row of C that of the log Z of all rows up to it."""
    rows, found = potentials.shape[2], []
    for row in range(rows):
        until = max(recent, row + 1)
        whole = log_z(potentials[:, :, :until], into[:, :, :until])
        (gradient,) = torch.autograd.grad(whole.sum(), potentials, create_graph=True)
        found.append(gradient[:, :, row])
    return torch.stack(found, 2)


@pytest.mark.parametrize("matrices", [1, 2])
def test_marginals_of_all_paths(matrices):
    potentials, raw, mixed = drawn(4, matrices)
    into = steps(raw, mixed).expand(2, 2, 4, 3, 3)
    weights = torch.zeros_like(potentials)
    for path in product(range(3), repeat=4):
        weight = into[:, :, 0].mean(2)[..., path[0]]
        for row, state in enumerate(path):
            weight = weight * potentials[:, :, row, state].exp()
            if row:
                weight = weight * into[:, :, row, path[row - 1], state]
        for row, state in enumerate(path):
            weights[:, :, row, state] += weight
    found, _ = marginals(potentials, raw.softmax(-1), mixed, 4)
    torch.testing.assert_close(found, weights / weights.sum(-1, keepdim=True))


@pytest.mark.parametrize("recent", [0, 2, 7, 31])
@pytest.mark.parametrize(("rows", "matrices"), [(1, 1), (3, 2), (10, 1), (10, 3), (31, 1), (31, 2)])
def test_marginals_are_gradients_of_log_z(rows, matrices, recent, small_blocks):
    """31 rows are 11 blocks of 3, in 4 groups, in 2. Gradients through the marginals too."""
    recent = min(recent, rows)
    potentials, raw, mixed = drawn(rows, matrices)
    found, last = marginals(potentials, raw.softmax(-1), mixed, directions(recent, rows))
    expected = by_log_z(potentials, steps(raw, mixed), recent if recent > 1 else 0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(last, expected[:, :, -1])
    weights = torch.randn_like(found)
    given = [potentials, raw, *([] if mixed is None else [mixed])]
    ours, theirs = (torch.autograd.grad((x * weights).sum(), given) for x in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("matrices", [1, 2])
def test_rows_that_follow(matrices, small_blocks):
    potentials, raw, mixed = drawn(31, matrices)
    each = raw.softmax(-1)
    first, then = (None, None) if mixed is None else (mixed[:, :, :11], mixed[:, :, 11:])
    whole, _ = marginals(potentials, each, mixed, 5)
    _, last = marginals(potentials[:, :, :11], each, first, 5)
    torch.testing.assert_close(marginals(potentials[:, :, 11:], each, then, 0, [last])[0], whole[:, :, 11:])


@pytest.mark.parametrize("matrices", [1, 2])
def test_documents_are_chains_of_their_own(matrices, small_blocks):
    potentials, raw, mixed = drawn(13, matrices)
    each = raw.softmax(-1)
    documents = [[(5, 3), (1, 0), (1, 1), (6, 4)], [(2, 2), (11, 0)]]
    found, _ = marginals(potentials, each, mixed, directions(intervals_of(documents), 13))
    for sample, listed in enumerate(documents):
        place = 0
        for rows, recent in listed:
            there = slice(sample, sample + 1), slice(None), slice(place, place + rows)
            own = None if mixed is None else mixed[there]
            expected, _ = marginals(potentials[there], each, own, directions(recent, rows))
            torch.testing.assert_close(found[there], expected)
            place += rows


@pytest.mark.parametrize("matrices", [1, 8])
def test_extreme_potentials_over_many_rows_are_finite(matrices):
    """Potentials at both bounds that change with every row, and transitions that forbid the change."""
    rows = 8192 // matrices
    signs = torch.randint(0, 2, (1, 1, rows, 16), generator=torch.manual_seed(0)).float()
    raw = (1e4 * (2 * signs - 1)).requires_grad_()
    scores = (1e4 * torch.randn(1, matrices, 16, 16)).requires_grad_()
    transition = (chain.bounded(scores) + 11.0 * torch.eye(16)).softmax(-1)
    # One of the matrices alone, another one at each row.
    chosen = (1e4 * torch.randn(1, 1, rows, matrices)).requires_grad_()
    mixed = chosen.softmax(-1) if matrices > 1 else None
    found, _ = marginals(chain.bounded(raw), transition, mixed, rows - 192)
    (found * torch.randn_like(found)).sum().backward()
    assert all(x.isfinite().all() for x in (found, raw.grad, scores.grad))
    assert matrices == 1 or chosen.grad.isfinite().all()
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 1, rows))
