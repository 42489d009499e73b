"""Pieces of rows: every row once, no allowed key missed, and few keys that no row sees."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.attention.row_pieces import JOINED, SHORT, pieces
from megarc.interval import Intervals

CHUNK = 256


@st.composite
def packed(draw):
    """Equal samples, packed with documents of 1 to 300 rows."""
    lengths = draw(st.lists(st.integers(1, 40) | st.integers(1, 300), min_size=1, max_size=20))
    ends = np.cumsum(lengths)
    documents = np.repeat(np.arange(len(lengths)), lengths)
    inside = [draw(st.integers(0, length)) for length in lengths]
    recent_end = np.repeat(ends - lengths + inside, lengths)
    samples = draw(st.integers(1, 3))
    both = (np.repeat(array[None].astype(np.int32), samples, 0) for array in (documents, recent_end))
    return lengths, Intervals.of(int(ends[-1]), np.zeros(samples, dtype=np.int32), *both)


@settings(max_examples=50, deadline=None)
@given(packed())
def test_pieces_of_packed_rows(case):
    lengths, seen = case
    allowed = torch.as_tensor(seen.allow(np.arange(seen.rows))[0])
    row, done = 0, torch.zeros_like(allowed)
    begin, end = (torch.as_tensor(array) for array in (seen.begin, seen.end))
    for piece in pieces(begin, end, seen.rows, CHUNK):
        assert piece.sample == slice(0, len(begin)) and piece.rows.start == row
        row, size = piece.rows.stop, piece.rows.stop - piece.rows.start
        done[piece.rows, piece.keys] = True
        # one document that is not worth two calls, or some that are hardly worth one
        if piece.recent is None:
            most = JOINED // min(2, len(begin))
            assert size <= most or (size in lengths and size < SHORT)
            assert piece.keys == piece.rows
    assert row == seen.rows and not (allowed & ~done).any()
