from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.data.blend import BLOCK, Blend, StagedBlend, quotas, staged_quotas
from megarc.errors import UserError

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12)


@given(WEIGHTS)
@settings(deadline=None)
def test_quotas_are_exact_to_one_sample(weights: list[float]) -> None:
    parts = quotas(weights)
    exact = np.asarray(weights) / sum(weights) * BLOCK
    assert sum(parts) == BLOCK
    assert min(parts) >= 1
    tiny = int((exact < 1).sum())
    assert np.abs(parts - exact).max() <= 1 + tiny + 1e-6


@given(WEIGHTS, st.integers(0, 10**12))
@settings(deadline=None, max_examples=30)
def test_every_block_has_its_quotas_and_no_turn_twice(weights: list[float], block: int) -> None:
    parts = quotas(weights)
    source, turn = Blend(parts)(np.arange(block * BLOCK, (block + 1) * BLOCK))
    for which, part in enumerate(parts):
        mine = np.sort(turn[source == which])
        assert (mine == np.arange(block * part, (block + 1) * part)).all()


@given(WEIGHTS)
@settings(deadline=None, max_examples=30)
def test_every_prefix_is_in_proportion(weights: list[float]) -> None:
    parts = quotas(weights)
    source, _ = Blend(parts)(np.arange(BLOCK))
    prefix = np.arange(1, BLOCK + 1)
    for which, part in enumerate(parts):
        share = part / BLOCK
        ahead = np.cumsum(source == which) - prefix * share
        assert np.abs(ahead).max() <= (1 + share * len(parts)) / 2 + 0.5


def test_turns_of_a_source_come_in_order() -> None:
    source, turn = Blend(quotas([3, 1, 0.01]))(np.arange(3 * BLOCK))
    for which in range(3):
        assert (np.diff(turn[source == which]) == 1).all()


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, -1.0], [float("nan")], [float("inf"), 1.0]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(UserError, match="weight"):
        quotas(weights)


def test_many_tiny_sources_get_one_each() -> None:
    parts = quotas([1e-9] * 1000 + [1.0])
    assert parts[:1000] == [1] * 1000
    assert sum(parts) == BLOCK
    with pytest.raises(UserError, match="Merge"):
        quotas([1.0] * (BLOCK + 1))


STAGES = st.lists(
    st.lists(st.sampled_from([0.0, 0.2, 1.0, 3.0]), min_size=3, max_size=3).filter(any),
    min_size=1,
    max_size=4,
)


@given(STAGES, st.lists(st.integers(1, 3000), min_size=4, max_size=4), st.integers(0, 9000))
@settings(deadline=None, max_examples=40)
def test_in_stages_each_source_goes_on_where_it_was(
    stages: list[list[float]], lengths: list[int], prefix: int
) -> None:
    begins = np.cumsum([0, *lengths])[: len(stages)].tolist()
    blend = StagedBlend(
        [(begin, staged_quotas(weights)) for begin, weights in zip(begins, stages, strict=True)]
    )
    source, turn = blend(np.arange(12000))
    for which in range(3):
        np.testing.assert_array_equal(turn[source == which], np.arange((source == which).sum()))
    np.testing.assert_array_equal(blend.counts(prefix), np.bincount(source[:prefix], minlength=3))
    for begin, end, weights in zip(begins, [*begins[1:], 12000], stages, strict=True):
        share = np.asarray(weights) / sum(weights)
        got = np.bincount(source[begin:end], minlength=3)
        assert np.abs(got - share * (end - begin)).max() <= 4
        assert not got[share == 0].any()
