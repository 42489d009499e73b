"""The rows of a window that each rank of a context group takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megarc.interval import Intervals, pairs_of
from megarc.row_shares import row_shares, work_of_rows
from megarc.window import Narrowing, pairs

EVEN = 1.05


def busiest(work, ranks):
    """What the busiest rank has to do, over the mean."""
    each = [work[rows].sum() for rows in row_shares(work, ranks)]
    return max(each) / np.mean(each)


def packed(rows, mean, seed):
    """The documents of one row of packed ones, some ``mean`` rows long."""
    ends = np.cumsum(1 + np.random.default_rng(seed).exponential(mean, rows).astype(int))
    return np.searchsorted(ends, np.arange(rows), side="right")[None].astype(np.int32)


@pytest.mark.parametrize("rows", [64, 4096, 1 << 17])
@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("recent", [0, 1 / 8, 1 / 2, 0.6, 7 / 8])
def test_ranks_have_equally_much_to_do(rows, ranks, recent):
    r = int(rows * recent)
    work = work_of_rows(r, rows, 1)
    assert work.sum() == pairs(rows, r)
    assert busiest(work, ranks) <= EVEN


@pytest.mark.parametrize("rows, ranks", [(4096, 2), (4096, 4), (8192, 16), (1 << 17, 8)])
@pytest.mark.parametrize("part", [1, 3, 10, 100])
def test_of_packed_documents_too(rows, ranks, part):
    """Of each R by its document, of each sample; and under a sliding window."""
    for seed in range(4):
        documents = packed(rows, rows / part, seed)
        recent_end = np.minimum(documents * 0 + rows // 3, rows).astype(np.int32)
        for end in (None, recent_end):
            seen = Intervals.of(rows, np.array([0], np.int32), documents, end)
            work = work_of_rows(seen, rows, 1)
            assert work.sum() == seen.pairs()
            assert busiest(work, ranks) <= EVEN
            for narrowing in (Narrowing(sliding=rows // 8), Narrowing(rows // 8, causal=0.75)):
                work = work_of_rows(seen, rows, 1, narrowing)
                assert work.sum() == pairs_of(seen, rows, 1, narrowing)
                assert busiest(work, ranks) <= EVEN


@pytest.mark.parametrize("causal", [0.25, 0.75, 1.0])
@pytest.mark.parametrize("recent", [0, 512, 2048, 3584])
def test_heads_that_see_r_causally_count_their_own_pairs(causal, recent):
    narrowing = Narrowing(causal=causal)
    work = work_of_rows(recent, 4096, 3, narrowing)
    assert work.sum() == pairs_of(recent, 4096, 3, narrowing)
    assert work[0] == 3 * ((1 - causal) * max(recent, 1) + causal)
    assert busiest(work, 4) <= EVEN


def test_a_causal_window_is_cut_into_two_chunks_a_rank_and_half_of_r_into_four():
    for recent, chunks in ((0, 2), (2048, 4)):
        shares = row_shares(work_of_rows(recent, 4096, 3), 4)
        assert max((np.diff(rows) != 1).sum() + 1 for rows in shares) == chunks


def test_the_head_counts_where_loss_rows_are_few():
    """Ranks with more loss rows see fewer keys."""
    loss = np.zeros(256, np.int64)
    loss[-64:] = 10_000
    work = work_of_rows(0, 256, 1, loss=loss)
    assert busiest(work, 4) <= EVEN
    assert [int((rows >= 192).sum()) for rows in row_shares(work, 4)] == [16] * 4


@given(st.integers(1, 6), st.integers(1, 40), st.data())
def test_each_row_has_one_rank_and_ranks_have_equally_many(ranks, own, data):
    rows = ranks * own
    work = np.array(data.draw(st.lists(st.integers(0, 1000), min_size=rows, max_size=rows)), np.int64)
    shares = row_shares(work, ranks)
    assert all(len(one) == own and (np.diff(one) > 0).all() for one in shares)
    assert sorted(np.concatenate(shares).tolist()) == list(range(rows))
