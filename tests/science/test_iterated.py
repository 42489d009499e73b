from __future__ import annotations

import re

import numpy as np
import pytest

from megarc.data import SourceConfig
from megarc.errors import UserError
from megarc.science import IteratedFunction, make_iterated_function
from megarc.science.iterated import CAUSAL, DIRECT, PAD, PLACES, SHOWN, STEPS
from megarc.window import Window

WINDOW = Window(14, CAUSAL, CAUSAL)
MANY = np.arange(1000)


def test_what_c_says_follows_from_r() -> None:
    samples = IteratedFunction(WINDOW, seed=3).read_many(MANY)
    assert samples.weights is not None and samples.weights.shape == (1000, CAUSAL)
    for tokens, weights in zip(samples.tokens, samples.weights, strict=True):
        edges = tokens[4:14] - PLACES
        function = dict(zip(edges // PLACES, edges % PLACES, strict=True))
        assert sorted(function) == sorted(function.values()) == list(range(PLACES))
        orbit = [tokens[14]]
        for _ in range(PLACES):
            orbit.append(function[orbit[-1]])
        assert len(set(orbit)) == PLACES and orbit[-1] == orbit[0]  # one cycle: every place on the way
        steps = orbit[1 : STEPS + 1]
        expected = {SHOWN: [SHOWN, *steps], DIRECT: [DIRECT, steps[-1], *[PAD] * (STEPS - 1)]}[tokens[15]]
        assert tokens[15:].tolist() == expected
        assert weights.tolist() == [float(token != PAD) for token in expected]
    assert (samples.tokens[:, :4] == PAD).all()


def test_half_of_the_samples_show_the_work() -> None:
    marks = IteratedFunction(WINDOW, seed=0).read_many(MANY).tokens[:, 15]
    assert set(marks) == {SHOWN, DIRECT} and abs((marks == SHOWN).mean() - 0.5) < 0.05
    direct = IteratedFunction(WINDOW, seed=0, shown=0.0).read_many(MANY).tokens
    assert (direct[:, 15] == DIRECT).all()
    assert (direct[:, :15] == IteratedFunction(WINDOW, seed=0).read_many(MANY).tokens[:, :15]).all()


@pytest.mark.parametrize("shown", [0.0, 0.25, 1.0])
def test_bounds_are_what_counting_says(shown: float) -> None:
    """By place in C: the entropy of what stands there, and at best that of the mark alone."""
    task = IteratedFunction(Window(12, 6, 6), 3, shown)
    samples = task.read_many(np.arange(20_000))
    assert samples.weights is not None
    there, tokens, nats, right = samples.weights > 0, samples.tokens[:, 13:], [], []
    for place in range(6):
        _, counts = np.unique(tokens[there[:, place], place], return_counts=True)
        shares = counts / max(1, counts.sum())
        nats.append(-(shares * np.log(shares)).sum() * there[:, place].mean())
        right.append(shares.max(initial=0.0) * there[:, place].mean())
    each = there.mean(0)
    counted = [nats[0], right[0] + each[1:].sum(), sum(nats), sum(right)]
    said = [float(number) for number in re.findall(r"\d\.\d{4}", task.facts.note)]
    assert "-" not in task.facts.note
    assert said == pytest.approx([one / each.sum() for one in counted], abs=0.01)


def test_r_may_be_longer_and_the_samples_are_the_same() -> None:
    longer = IteratedFunction(Window(30, CAUSAL, CAUSAL), seed=3).read_many(MANY).tokens
    assert (longer[:, 16:] == IteratedFunction(WINDOW, seed=3).read_many(MANY).tokens).all()
    for window in (Window(9, CAUSAL, CAUSAL), Window(14, CAUSAL + 1, CAUSAL), Window.split(64, 64)):
        with pytest.raises(UserError, match="iterated functions have windows"):
            IteratedFunction(window, seed=3)


def test_a_sample_depends_on_seed_and_number_only() -> None:
    task = IteratedFunction(WINDOW, seed=1)
    many = task.read_many(np.asarray([2**40 - 1, 7])).tokens
    assert (task.read(7).tokens == many[1]).all()
    assert (IteratedFunction(WINDOW, seed=2).read(7).tokens != many[1]).any()


def test_options_that_are_none_are_refused() -> None:
    assert len(make_iterated_function(SourceConfig(options={"seed": 3}), WINDOW)) == 2**40
    with pytest.raises(UserError, match="two options"):
        make_iterated_function(SourceConfig(options={"sede": 3}), WINDOW)
    with pytest.raises(UserError, match="two options"):
        make_iterated_function(SourceConfig(options={"shown": 2}), WINDOW)
