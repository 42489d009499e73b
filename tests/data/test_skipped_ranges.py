"""Gaps in the order: what a run consumes steps over them, and nothing else changes."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megarc.data import Batch, Gaps, around

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda r: (r[0], r[0] + r[1])))


def numbers(gaps, first, count):
    return [begin + offset for begin, length in gaps.runs(first, count) for offset in range(length)]


@given(ranges=RANGES, first=st.integers(0, 80), count=st.integers(0, 40))
def test_consumed_samples_are_the_order_without_the_gaps(ranges, first, count):
    out = {number for begin, end in ranges for number in range(begin, end)}
    kept = [number for number in range(400) if number not in out]
    assert numbers(Gaps.of(ranges), first, count) == kept[first : first + count]


@given(ranges=RANGES, begin=st.integers(-60, 60), count=st.integers(0, 40))
def test_a_phase_counts_from_where_it_began(ranges, begin, count):
    whole, later = Gaps.of(ranges), Gaps.of(ranges, begin)
    first = max(begin, 0)
    assert numbers(later, first, count) == numbers(whole, first - begin, count)
    assert later.and_also(first, count).begin == begin


@given(ranges=RANGES, cuts=st.lists(st.integers(0, 100), min_size=2, max_size=6))
def test_parts_join_to_the_whole(ranges, cuts):
    gaps, cuts = Gaps.of(ranges), sorted(cuts)
    parts = [number for left, right in pairwise(cuts) for number in numbers(gaps, left, right - left)]
    assert parts == numbers(gaps, cuts[0], cuts[-1] - cuts[0])


@given(ranges=RANGES, first=st.integers(0, 80), count=st.integers(1, 40))
def test_what_is_left_out_later_never_comes_and_the_past_stays(ranges, first, count):
    before = Gaps.of(ranges)
    after = before.and_also(first, count)
    assert numbers(after, 0, first) == numbers(before, 0, first)
    assert numbers(after, first, 30) == numbers(before, first + count, 30)
    assert Gaps.of([list(one) for one in after.ranges]) == after


@given(ranges=RANGES, first=st.integers(0, 80), count=st.integers(1, 40))
def test_a_batch_around_gaps_holds_these_samples(ranges, first, count):
    def read(begin, length):
        samples = np.arange(begin, begin + length)
        return Batch(samples[:, None].astype(np.int32), samples.astype(np.int32), samples)

    gaps = Gaps.of(ranges)
    batch = around(read, gaps)(first, count)
    assert batch.samples.tolist() == batch.tokens[:, 0].tolist() == numbers(gaps, first, count)
