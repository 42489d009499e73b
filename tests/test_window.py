"""The window's closed forms against counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megarc.errors import UserError
from megarc.window import Window, allow, pairs


@st.composite
def windows(draw):
    recent = draw(st.integers(0, 24))
    causal = draw(st.integers(1, 24))
    return Window(recent, causal, draw(st.integers(1, causal)))


def dense_mask(window):
    """[query, key], from the two sentences of the definition."""
    mask = np.zeros((window.rows, window.rows), bool)
    for query in range(window.rows):
        for key in range(window.rows):
            in_recent = key < window.recent
            mask[query, key] = in_recent or (key <= query if query >= window.recent else False)
    return mask


@given(windows())
def test_allow_is_the_definition(window):
    rows = np.arange(window.rows)
    mask = window.allow(rows[:, None], rows[None, :])
    assert (mask == dense_mask(window)).all()
    assert window.pairs() == mask.sum() == pairs(window.rows, window.recent)
    assert window.attention_flops(heads=3, head_dim=5) == 3 * 2 * (2 * 5) * mask.sum()


@given(windows())
def test_no_loss_row_has_seen_its_target(window):
    for row in range(window.rows)[window.loss_rows]:
        # Row i predicts token i + 1, which is row i + 1's: it must be out of sight.
        assert row + 1 == window.rows or not window.allow(row, row + 1)


@given(windows(), st.integers(0, 300))
def test_each_token_is_a_target_once(window, tokens):
    times = np.zeros(tokens + 1, int)
    starts = window.starts(tokens)
    assert len(starts) == window.count(tokens)
    for start in starts:
        assert start + window.tokens <= tokens
        rows = np.arange(window.rows)[window.loss_rows]
        times[start + rows + 1] += 1
    end = window.first_target + len(starts) * window.stride
    assert (times[window.first_target : end] == 1).all()
    assert times.sum() == len(starts) * window.stride
    if tokens >= window.tokens:
        assert tokens - end < window.stride  # only a tail shorter than a stride is left out
    if window.stride == window.causal:
        assert window.first_target == window.recent + 1


def test_presets():
    assert Window.plain(8) == Window(0, 8, 8)
    assert Window.masked_head(2000, 200) == Window(0, 2000, 1800)
    talk = Window.split(512, 512)
    assert talk.pairs() == 655_616
    assert talk.loss_rows == slice(512, 1024)


def test_allow_takes_recent_per_sample():
    rows = np.arange(7)
    recents = np.array([0, 3, 6])
    masks = allow(rows[None, :, None], rows[None, None, :], recents[:, None, None])
    for mask, recent in zip(masks, recents, strict=True):
        assert (mask == dense_mask(Window(int(recent), 7 - int(recent), 1))).all()


@pytest.mark.parametrize("numbers", [(-1, 4, 4), (2, 0, 1), (2, 4, 5), (2, 4, 0)])
def test_what_makes_no_window_is_refused(numbers):
    with pytest.raises(UserError, match="window: "):
        Window(*numbers)
