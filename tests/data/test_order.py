from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.data.local_shuffle import Locality
from megarc.data.order import CACHED, Sequential, Shuffled

SIZES, DIGESTS, QUOTAS = [1000, 37, 14_600_000_000], ["a", "b", "c"], [40_000, 536, 25_000]


def order(**changed: object) -> Shuffled:
    return Shuffled(SIZES, DIGESTS, QUOTAS, **{"seed": 1, **changed})  # type: ignore[arg-type]


def listed(which: Shuffled | Sequential, first: int, count: int) -> list[tuple[int, int]]:
    places = which.places(first, count)
    return list(zip(places.source.tolist(), places.number.tolist(), strict=True))


@given(first=st.integers(0, 10**13), cuts=st.lists(st.integers(1, 2 * CACHED), min_size=1, max_size=6))
@settings(deadline=None, max_examples=25)
def test_any_cut_gives_the_same_samples(first: int, cuts: list[int]) -> None:
    whole = listed(order(), first, sum(cuts))
    pieces, at, cached = [], first, order()
    for count in cuts:
        pieces += listed(cached, at, count)
        at += count
    assert pieces == whole


def test_one_epoch_of_each_source_reads_each_sample_once() -> None:
    places = order().places(0, 131_072)
    mine = places.number[places.source == 0][:80_000]
    for epoch in mine.reshape(80, 1000):
        assert len(np.unique(epoch)) == 1000
    assert len(np.unique(places.number[places.source == 2])) == 50_000


@pytest.mark.parametrize("changed", [{"seed": 2}, {"phase": 1}, {"locality": Locality(8, 4)}])
def test_seed_phase_and_locality_make_another_order(changed: dict[str, object]) -> None:
    assert listed(order(), 0, 1000) != listed(order(**changed), 0, 1000)


def test_another_source_beside_it_does_not_reorder_a_source() -> None:
    alone = Shuffled([1000], ["a"], [65_536], seed=1).places(0, 500).number
    both = order().places(0, 65_536)
    assert (both.number[both.source == 0][:500] == alone).all()


def test_two_sources_of_one_length_are_shuffled_differently() -> None:
    one = Shuffled([1000], ["a"], [65_536], seed=1).places(0, 1000).number
    two = Shuffled([1000], ["b"], [65_536], seed=1).places(0, 1000).number
    assert (one == two).sum() < 10


def test_sequential_is_each_once() -> None:
    assert listed(Sequential([2, 1, 3]), 0, 6) == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]
    assert listed(Sequential([2, 1, 3]), 2, 2) == [(1, 0), (2, 0)]
    assert len(Sequential([2, 1, 3])) == 6


def test_the_order_never_changes_silently() -> None:
    """Golden values. Where they change, every run in progress would change its data: don't."""
    assert listed(order(), 0, 8) == GOLDEN_START
    assert listed(order(seed=2**63, phase=3), 10**12, 6) == GOLDEN_FAR
    assert listed(order(locality=Locality(16, 4)), 70_000, 6) == GOLDEN_NEAR


GOLDEN_START = [
    (0, 966), (2, 1781879266), (0, 87), (2, 3402947963), (0, 386), (0, 297), (2, 11206050328), (0, 840),
]  # fmt: skip
GOLDEN_FAR = [(2, 6601068558), (0, 298), (0, 91), (2, 285241894), (0, 257), (2, 3785443313)]
GOLDEN_NEAR = [(0, 82), (0, 731), (2, 13568091513), (0, 801), (2, 12629243499), (0, 805)]
