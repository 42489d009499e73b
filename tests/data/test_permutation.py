from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.data.epochs import Epochs
from megarc.data.local_shuffle import Locality, NearPermutation
from megarc.data.permutation import Permutation

KEYS = st.integers(0, 2**64 - 1)
LOCALITIES = st.builds(Locality, block=st.integers(1, 40), mixed=st.integers(1, 12))


@given(size=st.integers(1, 3000), key=KEYS, tweak=st.integers(0, 2**62))
@settings(deadline=None)
def test_every_number_comes_once(size: int, key: int, tweak: int) -> None:
    assert sorted(Permutation(size, key)(np.arange(size), tweak)) == list(range(size))


@given(size=st.integers(1, 3000), key=KEYS, tweak=st.integers(0, 2**62), locality=LOCALITIES)
@settings(deadline=None)
def test_every_number_comes_once_with_locality(size: int, key: int, tweak: int, locality: Locality) -> None:
    assert sorted(NearPermutation(size, key, locality)(np.arange(size), tweak)) == list(range(size))


def test_every_size_up_to_300() -> None:
    for size in range(1, 301):
        assert len(set(Permutation(size, size)(np.arange(size)).tolist())) == size


@given(size=st.integers(2**20, 2**62), key=KEYS, start=st.integers(0, 2**62))
@settings(deadline=None, max_examples=50)
def test_huge_ones_stay_inside_without_collisions(size: int, key: int, start: int) -> None:
    numbers = (start % size + np.arange(20_000)) % size
    result = Permutation(size, key)(numbers)
    assert result.min() >= 0
    assert result.max() < size
    assert len(np.unique(result)) == len(np.unique(numbers))


def test_no_collision_among_a_million_of_fifteen_thousand_million() -> None:
    # A random function would collide about 34 times.
    numbers = np.random.default_rng(0).choice(14_600_000_000 // 14_600, 1_000_000, replace=False) * 14_600
    assert len(np.unique(Permutation(14_600_000_000, 7)(numbers))) == 1_000_000


@given(size=st.integers(1, 500), key=KEYS, locality=st.none() | LOCALITIES)
@settings(deadline=None)
def test_epochs_are_whole_and_differ(size: int, key: int, locality: Locality | None) -> None:
    order = Epochs(size, key, locality)(np.arange(3 * size)).reshape(3, size)
    for epoch in order:
        assert sorted(epoch) == list(range(size))
    if size > 50 and locality is None:
        assert not (order[0] == order[1]).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_small_ones_reach_every_permutation_about_equally(size: int) -> None:
    trials = 2400
    permutation = Permutation(size, 99)
    rows = permutation(np.tile(np.arange(size), trials), np.repeat(np.arange(trials), size)).reshape(-1, size)
    _, counts = np.unique(rows, axis=0, return_counts=True)
    possible = {1: 1, 2: 2, 3: 6, 4: 24}[size]
    assert len(counts) == possible
    expected = trials / possible
    assert ((counts - expected) ** 2 / expected).sum() < possible + 6 * (2 * possible) ** 0.5


@pytest.mark.parametrize("size", [3, 5, 6, 9, 15, 16, 31, 32])
def test_two_places_of_a_small_one_hold_any_two_numbers(size: int) -> None:
    """All pairs of numbers at the first two places, and at the first and the last, over 20,000 epochs: chi-square."""
    trials, permutation = 20_000, Permutation(size, 7)
    first, second, last = (
        permutation(np.full(trials, place), np.arange(trials)) for place in (0, 1, size - 1)
    )
    for other in (second, last):
        counts = np.bincount(first * size + other, minlength=size * size).reshape(size, size)
        assert not np.diag(counts).any()
        counts = counts[~np.eye(size, dtype=bool)]
        expected, freedom = trials / len(counts), len(counts) - 1
        assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("size", [5, 100])
def test_any_sample_may_open_an_epoch(size: int) -> None:
    """First places over 20,000 epochs, and their changes from one to the next: chi-square."""
    first = Permutation(size, 7)(np.zeros(20_000, dtype=np.int64), np.arange(20_000))
    for seen in (first, np.diff(first) % size):
        counts = np.bincount(seen, minlength=size)
        expected = len(seen) / size
        chi = ((counts - expected) ** 2 / expected).sum()
        assert chi < size + 5 * (2 * size) ** 0.5


def test_looks_random() -> None:
    """Where a number goes says nothing about where it was, nor where its neighbour goes."""
    size = 2**20 + 7
    result = Permutation(size, 3)(np.arange(size)).astype(float)
    bound = 4 / size**0.5
    for lag in (1, 2, 1024, 1025):
        assert abs(np.corrcoef(result[:-lag], result[lag:])[0, 1]) < bound
    assert abs(np.corrcoef(result, np.arange(size))[0, 1]) < bound
    # Pairs (where from, where to) fill a 64 x 64 grid evenly: chi-square with 63 * 63 degrees of freedom.
    grid, _, _ = np.histogram2d(np.arange(size), result, bins=64)
    expected = size / 64**2
    chi = ((grid - expected) ** 2 / expected).sum()
    assert abs(chi - 63**2) < 5 * (2 * 63**2) ** 0.5


def test_locality_touches_few_blocks_at_a_time() -> None:
    locality = Locality(block=100, mixed=5)
    order = NearPermutation(10_000, 1, locality)(np.arange(10_000))
    for group in order.reshape(-1, 500):
        # 5 runs of 100 neighbours, each of which the turn may let straddle the end.
        breaks = (np.diff(np.sort(group)) > 1).sum()
        assert breaks <= 5
        assert (np.diff(group) == 1).sum() < 30


def test_two_samples_of_a_batch_share_a_block_about_once_in_mixed() -> None:
    """The price of locality that docs/order.md states."""
    locality = Locality(block=64, mixed=16)
    batches = NearPermutation(2**18, 5, locality)(np.arange(2**18)).reshape(-1, 32)
    near = np.abs(batches[:, :1] - batches[:, 1:])
    near = np.minimum(near, 2**18 - near) < 64  # over the end too; of one block or, rarely, of two
    assert abs(near.mean() - 1 / 16) < 0.01


def test_numbers_outside_are_refused() -> None:
    with pytest.raises(ValueError, match="walk for ever"):
        Permutation(10, 0)([10])
    with pytest.raises(ValueError, match="1 to 2"):
        Permutation(0, 0)
