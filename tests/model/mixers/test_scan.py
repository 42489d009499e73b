"""The recurrence in chunks is the one row by row, with its gradients, and both ways a sum over allowed pairs."""

import pytest
import torch
from support.mixers import intervals_of, row_by_row

from megarc.interval import Intervals
from megarc.model.mixers import scan as chunked
from megarc.model.mixers.directions import directions
from megarc.model.mixers.scan import scan
from megarc.model.mixers.ssm import both_ways, continued


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK", 4)


def drawn(rows, heads=2, width=3, batch=2, strong=1.0):
    torch.manual_seed(rows)
    q, k, v = (torch.randn(batch, heads, rows, width, dtype=torch.float64) for _ in range(3))
    decay = -strong * torch.rand(batch, heads, rows, dtype=torch.float64)
    return [x.requires_grad_() for x in (q, k, v, decay)]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 17, 70])
def test_chunks_are_row_by_row(rows, strict):
    """70 rows are 18 chunks of 4, in 5 groups, in 2 groups of groups."""
    given = drawn(rows)
    state = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    first = None
    if rows > 4:
        first = torch.zeros(2, rows, dtype=torch.bool)
        first[0, [0, 2, 3]] = first[1, rows - 2] = True
    found = chunked.scan(*given, first, state, strict=strict)
    expected = row_by_row(*given, first, state, strict=strict)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    weights = [torch.randn_like(x) for x in expected]
    inputs = [*given, state]
    gradients = [
        torch.autograd.grad(
            sum((x * w).sum() for x, w in zip(each, weights, strict=True)), inputs, allow_unused=True
        )
        for each in (found, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(*(torch.zeros(()) if x is None else x for x in (one, other)))


def test_decays_however_strong_give_finite_values_and_gradients():
    given = [x.detach().float().requires_grad_() for x in drawn(70, strong=500.0)]
    y, state = chunked.scan(*given)
    (y.sum() + state.sum()).backward()
    assert all(x.isfinite().all() for x in (y, state, *(one.grad for one in given)))


def by_pairs(q, k, v, forward, backward, start, begin, recent_end):
    """The definition: a weight for each pair, [batch, heads, i, j], 0 where the mask forbids it."""
    rows = q.shape[2]
    y = torch.zeros_like(v)
    for sample in range(len(q)):
        for i in range(rows):
            first, end = int(begin[sample, i]), int(recent_end[sample, i])
            end = end if end > first + 1 else first
            for j in range(first, rows if i < end else i + 1):
                weight = 0.0
                if j <= i:
                    weight = forward[sample, :, j + 1 : i + 1].sum(-1).exp()
                elif j < end:
                    weight = backward[sample, :, i:j].sum(-1).exp()
                if i >= end and j < end:
                    weight = weight + start[sample, :, i] * backward[sample, :, first:j].sum(-1).exp()
                score = (q[sample, :, i] * k[sample, :, j]).sum(-1) * weight
                y[sample, :, i] += score[:, None] * v[sample, :, j]
    return y


@pytest.mark.parametrize("recent", [0, 1, 2, 5, 9, 13])
def test_both_ways_a_row_reads_what_the_mask_allows(recent):
    rows, (q, k, v, forward) = 13, drawn(13)
    backward, start = -torch.rand_like(forward), torch.rand_like(forward)
    given = [x.detach() for x in (q, k, v, forward, backward, start)]
    zeros = torch.zeros(2, rows, dtype=torch.int32)
    expected = by_pairs(*given, zeros, zeros + recent)
    found, states = both_ways(scan, *given, directions(recent, rows))
    torch.testing.assert_close(found, expected)
    # The same window as an interval for each row, and with rows of C that come later.
    documents = directions(intervals_of([[(rows, recent)]] * 2), rows)
    torch.testing.assert_close(both_ways(scan, *given, documents)[0], expected)
    cut = max(recent, 6)
    if cut < rows:
        _, states = both_ways(scan, *(x[:, :, :cut] for x in given), directions(recent, cut))
        q, k, v, forward, _, start = (x[:, :, cut:] for x in given)
        torch.testing.assert_close(continued(scan, q, k, v, forward, start, states)[0], expected[:, :, cut:])


def test_documents_with_an_r_each():
    given = [x.detach() for x in drawn(13)]
    given += [-torch.rand_like(given[3]), torch.rand_like(given[3])]
    seen = intervals_of([[(5, 3), (1, 0), (1, 1), (6, 4)], [(2, 2), (11, 0)]])
    assert isinstance(seen, Intervals)
    begin = seen.begin
    recent_end = seen.end.gather(1, begin.long())
    found, _ = both_ways(scan, *given, directions(seen, 13))
    torch.testing.assert_close(found, by_pairs(*given, begin, recent_end))


def test_a_sliding_window_is_refused():
    from megarc.errors import UserError

    row = torch.arange(6, dtype=torch.int32)[None]
    with pytest.raises(UserError, match="sliding"):
        directions(Intervals((row - 2).clamp(min=0), row + 1), 6)
