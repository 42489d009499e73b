"""Interpolated modified Kneser-Ney: n-grams of a stream of tokens, counted on disk.

The n-grams run over the whole stream, across documents, as a model's windows do. Every id of the vocabulary has a
probability above 0, and they sum to 1 (no unknown word, no start symbol).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.errors import UserError
from megarc.science.ladder.discounts import Discounts, discounts
from megarc.science.ladder.external_count import Counted, count_keys, keys_at_once
from megarc.science.ladder.packing import Keys, Packing

Probabilities: TypeAlias = npt.NDArray[np.float64]
Tokens: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Level:
    """The grams of one order with their counts: how often each occurs, or behind how many different tokens."""

    packing: Packing
    table: Counted
    discounts: Discounts
    at_once: int

    def interpolated(self, columns: Sequence[Tokens], lower: Probabilities) -> Probabilities:
        """P(last | those before) [m] of grams in ``columns``, ``order`` arrays [m].

        ``(max(c - D(c), 0) + (D1 n1 + D2 n2 + D3 n3+) P_lower) / sum of c`` in the context; ``P_lower`` where the
        context is unknown. Source: Chen and Goodman 1998, section 3.

        Args:
            lower: the same of the order below [m].
        """
        keys = self.packing.pack(columns)
        at = np.minimum(np.searchsorted(self.table.keys, keys), max(len(self.table) - 1, 0))
        counts = np.where(self.table.keys[at] == keys, self.table.counts[at], 0)
        total, ones, twos, more = self._context_sums(columns[:-1], len(keys))
        d1, d2, d3 = self.discounts.values
        mass = d1 * ones + d2 * twos + d3 * more
        known = total > 0
        kept = counts - self.discounts.of(counts)
        return np.where(known, (kept + mass * lower) / np.where(known, total, 1.0), lower)

    def _context_sums(self, context: Sequence[Tokens], many: int) -> npt.NDArray[np.float64]:
        """Of each context the sum of its counts, and how many are 1, 2, 3 or more: [4, m]."""
        zeros: Tokens = np.zeros(many, np.uint64)
        last: Tokens = np.full(many, self.packing.vocabulary - 1, np.uint64)
        low = np.searchsorted(self.table.keys, self.packing.pack([*context, zeros]), side="left")
        high = np.searchsorted(self.table.keys, self.packing.pack([*context, last]), side="right")
        edges, places = np.unique(np.concatenate((low, high)), return_inverse=True)
        sums = self._sums_before(edges)[:, places]
        return sums[:, many:] - sums[:, :many]

    def _sums_before(self, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The four sums over the entries before each of the ascending ``edges``: [4, edges]."""
        found = np.zeros((4, len(edges)))
        before, first = np.zeros((4, 1)), 0
        for _, counts in self.table.pieces(self.at_once):
            kinds = np.stack((counts, counts == 1, counts == 2, counts >= 3)).astype(np.float64)
            sums = np.concatenate((before, before + np.cumsum(kinds, axis=1)), axis=1)
            stop = first + len(counts)
            inside = slice(np.searchsorted(edges, first), np.searchsorted(edges, stop, side="right"))
            found[:, inside] = sums[:, edges[inside] - first]
            before, first = sums[:, -1:], stop
        return found


@dataclass(frozen=True, slots=True)
class KneserNey:
    """Models of several orders over one text.

    Attributes:
        raw: by order, counts of occurrences: the top of the model of that order.
        below: by order, counts of different tokens before: what every model of a higher order goes back to.
    """

    vocabulary: int
    raw: dict[int, Level]
    below: dict[int, Level]

    def probabilities(self, order: int, columns: Sequence[Tokens]) -> Probabilities:
        """P(last | ``order`` - 1 before) [m] of grams in ``columns``, ``order`` arrays [m]."""
        found: Probabilities = np.full(len(columns[-1]), 1.0 / self.vocabulary)
        for size in range(1, order + 1):
            level = self.raw[order] if size == order else self.below[size]
            found = level.interpolated(columns[-size:], found)
        return found


def count_ngrams(
    tokens: Tokens,
    vocabulary: int,
    orders: Sequence[int],
    folder: Path,
    *,
    memory: int = 2**29,
    advance: Callable[[float], None] = lambda tokens: None,
) -> KneserNey:
    """Counts the n-grams of ``tokens`` [N], ids below ``vocabulary``, for models of ``orders``.

    Args:
        folder: the tables lie there, as long as the model is in use.
        memory: bytes that counting may hold. Disk takes up to 48 bytes a token for the highest order while its runs are
            merged, and up to 24 for each table of a lower order.
        advance: called with how many tokens more are counted, ``work(N, orders)`` in all.

    Raises:
        UserError: where the text is too short for an order.
    """
    at_once, top = keys_at_once(memory), max(orders)
    for order in orders:
        Packing(order, vocabulary)  # refuses before anything is counted

    def level(packing: Packing, pieces: Iterator[Keys], name: str, share: float) -> Level:
        table = count_keys(pieces, packing.dtype, folder / name, memory, lambda keys: advance(keys * share))
        return Level(packing, table, discounts(_counts_of_counts(table, at_once)), at_once)

    raw = {}
    for order in sorted(orders):
        packing = Packing(order, vocabulary)
        raw[order] = level(packing, _grams(tokens, packing, at_once), f"raw-{order}", 1.0)
        _refuse_too_short(raw[order], len(tokens))
    below: dict[int, Level] = {}
    above = raw[top]
    for order in range(top - 1, 0, -1):
        packing = Packing(order, vocabulary)
        share = len(tokens) / max(1, len(above.table))
        below[order] = above = level(packing, _endings(above, packing), f"below-{order}", share)
    return KneserNey(vocabulary, raw, below)


def work(tokens: int, orders: Sequence[int]) -> int:
    """Tokens to count for ``orders``, as ``advance`` tells them."""
    return tokens * (len(orders) + max(orders) - 1)


def _grams(tokens: Tokens, packing: Packing, at_once: int) -> Iterator[Keys]:
    """The grams of the text, one for each token that has ``order`` - 1 before it."""
    count = len(tokens) - packing.order + 1
    for first in range(0, count, at_once):
        size = min(at_once, count - first)
        some = np.asarray(tokens[first : first + size + packing.order - 1])
        yield packing.pack([some[place : place + size] for place in range(packing.order)])


def _endings(above: Level, packing: Packing) -> Iterator[Keys]:
    """Each different gram of ``above`` without its first token."""
    for keys, _ in above.table.pieces(above.at_once):
        yield packing.pack(above.packing.columns(keys)[1:])


def _counts_of_counts(table: Counted, at_once: int) -> npt.NDArray[np.int64]:
    """How many entries have a count of 1, 2, 3 and 4: [4]."""
    found: npt.NDArray[np.int64] = np.zeros(5, np.int64)
    for _, counts in table.pieces(at_once):
        found += np.bincount(counts[counts < 5], minlength=5)
    return found[1:]


def _refuse_too_short(level: Level, tokens: int) -> None:
    order = level.packing.order
    if not len(level.table) or (order > 1 and tokens > 0 and len(level.table) == tokens - order + 1):
        raise UserError(
            f"the corpus has {tokens} tokens, too few for {order}-grams: none occurs twice; "
            f"give a longer corpus or --order {max(1, order - 1)}"
        )
