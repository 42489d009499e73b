"""The newest part of one text, whatever the window's R; and questions whose answers stand in the text."""

import numpy as np
import pytest

from megarc.data import SourceConfig
from megarc.errors import UserError
from megarc.science import DistantRecall, make_distant_recall
from megarc.window import Window

PAIRS = 32


def test_a_shorter_r_is_the_end_of_a_longer_one_and_answers_are_in_the_text():
    whole = DistantRecall(Window(64, 16, 16), PAIRS, seed=3)
    short = DistantRecall(Window(8, 16, 16), PAIRS, seed=3)
    for number in (0, 7):
        sample, end = whole.read(number), short.read(number)
        assert (sample.tokens[56:] == end.tokens).all()
        text, asked = sample.tokens[:64], sample.tokens[64:80]
        value_of = dict(zip(text[::2], text[1::2], strict=True))
        assert len(value_of) == PAIRS
        assert [value_of[key] for key in asked[::2]] == asked[1::2].tolist()
        assert sample.weights.tolist() == [1.0, 0.0] * 8
    assert not (whole.read(0).tokens == whole.read(1).tokens).all()
    assert max(np.max(whole.read(k).tokens) for k in range(20)) < whole.facts.vocabulary


@pytest.mark.parametrize(
    ("window", "options"),
    [
        (Window(66, 16, 16), {}),
        (Window(7, 16, 16), {}),
        (Window(8, 66, 66), {}),
        (Window(8, 16, 8), {}),
        (Window(8, 16, 16), {"pairs": 0}),
        (Window(8, 16, 16), {"keys": 2}),
    ],
)
def test_what_makes_no_task_is_refused(window, options):
    with pytest.raises(UserError, match="distant_recall"):
        make_distant_recall(SourceConfig(kind="distant_recall", options={"pairs": PAIRS} | options), window)
