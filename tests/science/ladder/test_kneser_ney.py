"""Modified Kneser-Ney against a slow one with dictionaries, and as a distribution."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from megarc.errors import UserError
from megarc.science.ladder import count_ngrams, ngrams
from megarc.science.ladder.discounts import discounts
from megarc.science.ladder.external_count import count_keys
from megarc.science.ladder.packing import Packing

NARROW, WIDE = 23, 30_011  # 5 ids of the first fit into 64 bits, of the second they do not
SMALL = 1 << 16  # bytes: sorts 1024 keys at a time


def text(vocabulary, length, seed=0):
    """Ids with a pattern: a few favourites, and each often followed by its double."""
    random = np.random.default_rng(seed)
    ids = (random.zipf(1.4, length) * 7 % vocabulary).astype(np.int64)
    again = random.random(length) < 0.5
    for place in range(1, length):
        if again[place]:
            ids[place] = ids[place - 1] * 2 % vocabulary
    return ids.astype(np.uint16)


class Slow:
    """The same model of one order, from counts in dictionaries."""

    def __init__(self, ids, order, top, vocabulary):
        self.vocabulary, self.order = vocabulary, order
        kinds = {tuple(ids[at : at + top]) for at in range(len(ids) - top + 1)}
        self.levels = {}
        for size in range(top - 1, 0, -1):
            below = Counter(gram[1:] for gram in kinds)
            self.levels[size] = below
            kinds = set(below)
        self.levels[order] = Counter(tuple(ids[at : at + order]) for at in range(len(ids) - order + 1))

    def probability(self, gram):
        found = 1 / self.vocabulary
        for size in range(1, self.order + 1):
            counts, piece = self.levels[size], gram[len(gram) - size :]
            steps = discounts(np.array([sum(c == n for c in counts.values()) for n in (1, 2, 3, 4)])).values
            after = [count for key, count in counts.items() if key[:-1] == piece[:-1]]
            if not after:
                continue
            freed = sum(steps[min(count, 3) - 1] for count in after)
            own = counts[piece]
            kept = own - steps[min(own, 3) - 1] if own else 0
            found = (kept + freed * found) / sum(after)
        return found


@pytest.mark.parametrize("vocabulary", [NARROW, WIDE])
def test_it_is_the_model_of_the_book(tmp_path, vocabulary):
    ids, heldout = text(vocabulary, 3000), text(vocabulary, 60, seed=1)
    orders = [1, 2, 3, 5]
    model = count_ngrams(ids, vocabulary, orders, tmp_path, memory=SMALL)
    assert model.raw[5].packing.wide == (vocabulary == WIDE)
    plain, ahead = ids.tolist(), heldout.tolist()
    for order in orders:
        slow = Slow(plain, order, 5, vocabulary)
        columns = [heldout[4 - back : len(heldout) - back] for back in range(order - 1, -1, -1)]
        found = model.probabilities(order, columns)
        wanted = [slow.probability(tuple(ahead[at - order + 1 : at + 1])) for at in range(4, len(ahead))]
        assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("vocabulary", [NARROW, WIDE])
def test_it_sums_to_one_in_seen_and_unseen_contexts(tmp_path, vocabulary):
    ids = text(vocabulary, 4000)
    model = count_ngrams(ids, vocabulary, [1, 2, 3, 5], tmp_path, memory=SMALL)
    known, unknown = ids[100:104], np.array([vocabulary - 1, 3, vocabulary - 2, 5])
    mixed = np.concatenate((unknown[:2], ids[102:104]))
    for order in (1, 2, 3, 5):
        for context in (known, unknown, mixed):
            before = [np.full(vocabulary, word, np.uint64) for word in context[len(context) - order + 1 :]]
            every = model.probabilities(order, [*before, np.arange(vocabulary, dtype=np.uint64)])
            assert every.min() > 0 and every.sum() == pytest.approx(1, abs=1e-9)


def test_counts_do_not_depend_on_memory(tmp_path):
    keys = np.random.default_rng(0).integers(0, 5000, 20_000).astype(np.uint64)
    pieces = [keys[first : first + 1000] for first in range(0, len(keys), 1000)]
    found = count_keys(pieces, keys.dtype, tmp_path / "small", SMALL)
    wanted = np.unique(keys, return_counts=True)
    assert (found.keys == wanted[0]).all() and (found.counts == wanted[1]).all()
    assert {path.name for path in tmp_path.iterdir()} == {"small.keys", "small.counts"}  # no run is left


def test_memory_stays_within_its_budget(tmp_path):
    ids = text(WIDE, 150_000)
    budget = 1 << 20  # counting without runs would hold 64 bytes a token: 10 times as much
    tracemalloc.start()
    try:
        count_ngrams(ids, WIDE, [1, 2, 3, 5], tmp_path, memory=budget)
        assert tracemalloc.get_traced_memory()[1] < 2 * budget
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("order", "vocabulary"), [(1, 7), (3, 7), (5, 2048), (5, 65_535), (4, 262_144), (5, 200_000)]
)
def test_packed_grams_come_back_and_sort_as_grams(order, vocabulary):
    columns = list(np.random.default_rng(order).integers(0, vocabulary, (order, 500)))
    columns[0][:250] = vocabulary - 1
    packing = Packing(order, vocabulary)
    keys = packing.pack(columns)
    assert keys.dtype == packing.dtype
    assert all((ours == theirs).all() for ours, theirs in zip(packing.columns(keys), columns, strict=True))
    sorted_grams = sorted(zip(*(column.tolist() for column in columns), strict=True))
    ours = zip(*(column.tolist() for column in packing.columns(np.sort(keys))), strict=True)
    assert list(ours) == sorted_grams


def test_a_gram_that_fits_nowhere_is_refused():
    with pytest.raises(UserError, match=r"give --order 4 or less"):
        Packing(5, 262_144)
    with pytest.raises(UserError, match=r"40-grams .* --order 8 or less"):
        Packing(40, 2048)


def test_impossible_discounts_are_replaced():
    assert discounts(np.array([100, 40, 20, 12])).replaced == ()
    templated = discounts(np.array([0, 0, 0, 9]))
    assert templated.replaced == (1, 2, 3) and templated.values == (0.5, 1.0, 1.5)
    assert discounts(np.array([10, 1, 40, 900])).replaced == (2, 3)  # 2 - 3 Y 40 < 0


def test_templated_text_keeps_a_probability_for_what_it_never_says(tmp_path):
    ids = np.tile(np.arange(10, dtype=np.uint16), 100)
    row = list(ngrams(ids, np.array([9, 9, 9, 9, 3, 4], np.uint16), range(4, 6), 11, [1, 2, 3, 5], tmp_path))
    assert all(0 < one.nats_per_token < 20 and "fixed discounts" in one.pattern for one in row)


def test_a_text_too_short_for_the_order_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"12 tokens, too few for 3-grams: .* --order 2"):
        count_ngrams(np.array([1, 2] * 2 + [3, 4, 5, 1, 2, 6, 7, 8]), 9, [1, 2, 3, 5], tmp_path)
    with pytest.raises(UserError, match="0 tokens, too few"):
        count_ngrams(np.empty(0, np.uint16), 9, [1], tmp_path)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"the held-out text's token 1 is 12"):
        list(ngrams(np.arange(9), np.array([1, 12, 3]), range(1, 3), 9, [1], tmp_path))
