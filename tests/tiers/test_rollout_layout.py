"""[history | roll-outs | C], row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megarc.errors import UserError
from megarc.tiers.rollout_layout import Layout, Tags

TAGS = Tags(tuple(range(900, 910)), 950, 951)


def test_the_picture():
    text = np.arange(12)[None]  # boundary at 8: history 0..7, C from 8 on
    framed = TAGS.frame(0, np.asarray([[[70, 71]]])), TAGS.frame(1, np.asarray([[[80, 81]]]))
    shown = Layout(10, None).assemble(text, 8, framed)
    assert shown.tokens[0].tolist() == [6, 7, 900, 70, 71, 950, 901, 80, 81, 950, 8, 9, 10, 11]
    assert shown.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 2, 3, 4, 5]
    assert shown.origin[0].tolist() == [6, 7, *[8] * 8, 8, 9, 10, 11]
    assert shown.recent == 10


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))
def test_c_is_the_same_whatever_is_kept(seed, samples, tokens, spare):
    generator = np.random.default_rng(seed)
    room = samples * (tokens + 2)
    boundary = room + spare
    text = generator.integers(0, 900, (3, boundary + 5))
    framed = [TAGS.frame(2, generator.integers(0, 900, (3, samples, tokens)))]
    kept = generator.random((3, samples)) < 0.5
    shown = Layout(boundary, None).assemble(text, boundary, framed, kept)
    assert shown.tokens.shape == text.shape
    assert (shown.tokens[:, boundary:] == text[:, boundary:]).all()
    for row in range(3):
        rollouts = framed[0][row][kept[row]].reshape(-1)
        history = boundary - len(rollouts)
        assert shown.tokens[row, history:boundary].tolist() == rollouts.tolist()
        # What is left out gives its rows to older history.
        assert shown.tokens[row, :history].tolist() == text[row, boundary - history : boundary].tolist()
        assert shown.positions[row, boundary:].tolist() == list(range(history, history + 5))


def test_history_that_stays_pushes_the_lowest_tiers_roll_outs_out():
    assert Layout(20, 3).fitting([5, 5, 4, 4]).tolist() == [False, True, True, True]
    assert Layout(20, None).fitting([5, 5, 5, 5]).all()
    for layout in (Layout(20, None), Layout(20, 16)):
        with pytest.raises(UserError, match=r"make window\.recent longer"):
            layout.fitting([6, 6, 6, 6])


def test_a_short_text_has_less_history():
    text = np.arange(4)[None]
    shown = Layout(10, None).assemble(text, 3, [TAGS.frame(0, np.asarray([[[70]]]))])
    assert shown.tokens[0].tolist() == [0, 1, 2, 900, 70, 950, 3] and shown.recent == 6


def test_tags_come_from_the_tokenizer():
    reserved = {"<ro>": 5, "</ro>": 6, **{f"<spare{n}>": 10 + n for n in range(10)}}
    tags = Tags.of(reserved, "x")
    assert tags.opening[:3] == (5, 10, 11) and (tags.closing, tags.filler) == (6, 19)
    assert tags.filler not in tags.opening
    with pytest.raises(UserError, match="has no </ro>"):
        Tags.of({name: i for name, i in reserved.items() if name != "</ro>"}, "x")
