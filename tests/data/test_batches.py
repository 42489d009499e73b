from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megarc.data.batches import part_of_step
from megarc.errors import UserError


@given(
    first=st.integers(0, 10**12),
    ranks=st.integers(1, 9),
    micro_batch=st.integers(1, 7),
    times=st.integers(1, 5),
)
def test_ranks_and_micro_batches_read_the_step_once_in_order(
    first: int, ranks: int, micro_batch: int, times: int
) -> None:
    batch = ranks * micro_batch * times
    parts = [part_of_step(first, batch, rank, ranks, micro_batch) for rank in range(ranks)]
    read = [k for part in parts for begin, count in part for k in range(begin, begin + count)]
    assert read == list(range(first, first + batch))
    assert {len(part) for part in parts} == {times}
    assert {count for part in parts for _, count in part} == {micro_batch}


@pytest.mark.parametrize(
    ("batch", "ranks", "micro_batch"), [(8, 3, 1), (8, 2, 3), (8, 2, 8), (0, 1, 1), (8, 1, 0)]
)
def test_what_cannot_be_cut_is_refused(batch: int, ranks: int, micro_batch: int) -> None:
    with pytest.raises(UserError, match="cannot be cut"):
        part_of_step(0, batch, 0, ranks, micro_batch)
