"""Overlaps of fragments against numpy's own indexing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megarc.train.checkpoint.boxes import Box, interval, overlaps, size

OUTER, INNER = 6, 7


@st.composite
def fragments(draw):
    """A contiguous range of a shard that holds columns left .. right-1: at most three boxes."""
    left = draw(st.integers(0, INNER - 1))
    right = draw(st.integers(left + 1, INNER))
    width = right - left
    start = draw(st.integers(0, OUTER * width))
    stop = draw(st.integers(start, OUTER * width))
    boxes = []
    while start < stop:
        top, column = divmod(start, width)
        whole_rows = (stop - start) // width
        if column == 0 and whole_rows:
            boxes.append(Box(top, top + whole_rows, left, right))
        else:
            end = min(width, column + stop - start)
            boxes.append(Box(top, top + 1, left + column, left + end))
        start += boxes[-1].size
    return boxes


def gather(boxes, full):
    return np.concatenate([full[b.top : b.bottom, b.left : b.right].ravel() for b in boxes] or [full[:0, 0]])


@given(fragments(), fragments())
def test_copies_all_that_two_fragments_share(source, target):
    full = np.arange(OUTER * INNER).reshape(OUTER, INNER)
    have, want = gather(source, full), gather(target, full)
    got = np.full_like(want, -1)
    for common in overlaps(source, target):
        for row in range(common.rows):
            here = common.source + row * common.source_pitch
            there = common.target + row * common.target_pitch
            got[there : there + common.width] = have[here : here + common.width]
    assert ((got == want) == np.isin(want, have)).all()
    assert size(source) == len(have)


def test_an_interval_is_one_row():
    assert interval(3, 9) == [Box(0, 1, 3, 9)]
    assert interval(3, 3) == []
