"""A late clue: the clue that says what the items mean stands behind them.

Each of K clues splits the alphabet into two halves (random ones, the same for all seeds), and the answer is how many
items lie in the clue's half. Where rows see the clue, each row can decide about its own item, and one number, the
count, travels on. Under a causal mask the items' rows come before the clue: they must hand on counts for all clues,
a width that grows with K (the talk's "embedding of width T * d").

    token    0 .. N-1   N      N+1  N+2
    holds    x_1..x_N   clue   =    count        clue: late
             clue       x_1..x_N    =    count   clue: early, the control: causal rows know the clue too
"""

from __future__ import annotations

from math import comb
from typing import Literal

import numpy as np

from megarc.config import key
from megarc.data.counter_random import Words, below, key_of, table
from megarc.errors import UserError
from megarc.science.tasks.task import Task, TaskOptions, Tokens


class LateClueOptions(TaskOptions):
    """Items, clues, and where the clue stands."""

    items: int = key(8, "of a sample", ge=1)
    symbols: int = key(16, "of the items' alphabet, even", ge=2)
    clues: int = key(16, "of which each sample has one", ge=1)
    clue: Literal["late", "early"] = key("late", "behind the items, or before them")


class LateClue(Task):
    """One answer: a count of 0 to ``items``."""

    options, title = LateClueOptions, "late clue"

    def _prepare(self, options: LateClueOptions) -> None:
        if options.symbols % 2:
            raise UserError(f"options of late_clue: symbols is {options.symbols}; it must be even")
        self._items, self._symbols, self._clues = options.items, options.symbols, options.clues
        self._late = options.clue == "late"
        self.columns = options.items + 1
        self.length = options.items + 3
        self.answers = (options.items + 2,)
        self._mark = options.symbols + options.clues
        self.vocabulary = self._mark + 1 + options.items + 1
        self.guess = np.zeros(self.vocabulary)
        counts = [comb(options.items, count) / 2**options.items for count in range(options.items + 1)]
        self.guess[self._mark + 1 :] = counts
        self.halves = halves_of(options.clues, options.symbols)

    def make(self, random: Words) -> Tokens:
        items = below(random[:, 1:], self._symbols).astype(np.int64)
        clue = below(random[:, :1], self._clues).astype(np.int64)
        count = self.halves[clue, items].sum(axis=1, keepdims=True)
        mark, named = np.full_like(clue, self._mark), clue + self._symbols
        text = [items, named] if self._late else [named, items]
        return np.concatenate([*text, mark, self._mark + 1 + count], axis=1)


def halves_of(clues: int, symbols: int) -> Tokens:
    """Whether a symbol lies in a clue's half, [clues, symbols] of 0 and 1; each half has symbols / 2 members."""
    order = table(key_of("halves of the alphabet", symbols), np.arange(clues), symbols).argsort(axis=1)
    return (order < symbols // 2).astype(np.int64)
