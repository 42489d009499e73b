"""Some rows of a window against all of its keys: what a rank of ``parallel.context`` computes."""

import numpy as np
import pytest
import torch

from megarc.attention import ENGINES, attend
from megarc.errors import UserError
from megarc.interval import Intervals
from megarc.row_shares import row_shares, work_of_rows

ENGINES_HERE = ["split_cpu", "reference"]  # the kernel that serves a GPU: interpreted.py
# rows, ranks, samples, mean length of documents, R by document, sliding window
CASES = [
    (64, 2, 1, None, False, None),
    (96, 4, 2, None, False, 20),
    (512, 2, 2, 150, False, None),
    (512, 4, 1, 60, True, None),
    (600, 3, 2, 20, True, 100),
]


def intervals(rows, samples, mean, by_document, sliding, seed):
    chance = np.random.default_rng(seed)
    recent = chance.integers(0, rows, samples).astype(np.int32)
    documents = recent_end = None
    if mean:
        ends = np.cumsum(1 + chance.exponential(mean, rows).astype(int))
        documents = np.searchsorted(ends, np.arange(rows), side="right")[None].astype(np.int32)
        documents = np.repeat(documents, samples, 0)
    if by_document:
        first = np.maximum.accumulate(
            np.where(np.diff(documents, prepend=-1, axis=1) != 0, np.arange(rows), 0), 1
        )
        recent_end = (first + mean // 3).astype(np.int32)
    return Intervals.of(rows, recent, documents, recent_end, sliding)


@pytest.mark.parametrize("engine", ENGINES_HERE)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_ranks_together_compute_what_one_does(engine, case):
    """Output and gradients, keys' and values' summed over ranks, against the reference with a dense mask."""
    rows, ranks, samples, *_ = case
    torch.manual_seed(0)
    seen = intervals(rows, *case[2:], seed=len(str(case)))
    q, k, v = (
        torch.randn(samples, heads, rows, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)
    )
    expected = attend(q, k, v, seen.map(torch.as_tensor), engine="reference")
    upstream = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (q, k, v), upstream)
    found = [torch.zeros_like(one) for one in (q, k, v)]
    for own in map(torch.as_tensor, row_shares(work_of_rows(seen, rows, samples), ranks)):
        part = q.detach()[:, :, own].requires_grad_()
        out = attend(
            part, k, v, seen.map(lambda array, own=own: torch.as_tensor(array)[:, own]), engine=engine
        )
        assert (out - expected[:, :, own]).abs().max() < 1e-12
        grads = torch.autograd.grad(out, (part, k, v), upstream[:, :, own])
        found[0][:, :, own] = grads[0]
        for total, one in zip(found[1:], grads[1:], strict=True):
            total += one
    for one, other in zip(wanted, found, strict=True):
        assert (one - other).abs().max() < 1e-11


def test_an_engine_that_needs_all_rows_says_so():
    q, k = torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 8, 8)
    some = Intervals(torch.zeros(1, 4, dtype=torch.int32), torch.full((1, 4), 8, dtype=torch.int32))
    assert {name for name, module in ENGINES.items() if not getattr(module, "FEWER_ROWS", False)} == {"flex"}
    with pytest.raises(UserError, match=r"takes no fewer rows than keys \(parallel.context\)"):
        attend(q, k, k, some, engine="flex")
    beyond = Intervals(some.begin, some.end + 1)
    with pytest.raises(UserError, match="0 <= begin"):
        attend(q, k, k, beyond)
    with pytest.raises(UserError, match="must agree"):
        attend(q, k, k, 4)  # without intervals nobody says which rows they are
