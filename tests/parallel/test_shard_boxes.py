"""Overlaps of fragments against numpy's own indexing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megarc.parallel.shard_boxes import Box, cut, overlaps, size, whole

OUTER, INNER = 6, 7


@st.composite
def fragments(draw):
    """A contiguous range of a shard of one or two parts, each some rows and some columns."""
    shard = []
    for first, last in ((0, 3), (3, OUTER)):
        top = draw(st.integers(first, last))
        left = draw(st.integers(0, INNER - 1))
        shard.append(Box(top, draw(st.integers(top, last)), left, draw(st.integers(left + 1, INNER))))
    start = draw(st.integers(0, size(shard)))
    stop = draw(st.integers(start, size(shard)))
    full = np.arange(OUTER * INNER).reshape(OUTER, INNER)
    boxes = cut(shard, start, stop)
    assert (gather(boxes, full) == gather(shard, full)[start:stop]).all()
    assert len(boxes) <= 6
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


def test_whole():
    assert whole((3, 5)) == [Box(0, 3, 0, 5)]
    assert whole((5,)) == [Box(0, 1, 0, 5)]
