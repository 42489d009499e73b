"""Copy and reverse: a string, a mark, and the string again or backwards.

Jelassi, Brandfonbrener, Kakade, Malach 2024 ("Repeat After Me", 2402.01032): a transformer of two layers copies strings
of a length exponential in its size; a model with a state of fixed size copies no more than its state holds.

    token    0 .. L-1   L    L+1 ..
    holds    x_1..x_L   =    x_1..x_L, or x_L..x_1
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from megarc.config import key
from megarc.data.counter_random import Words, below
from megarc.science.tasks.task import Task, TaskOptions, Tokens, alike


class CopyingOptions(TaskOptions):
    """The string and its direction."""

    symbols: int = key(12, "of the alphabet", ge=2, le=65_536)
    string: int = key(12, "symbols of a string", ge=1)
    direction: Literal["copy", "reverse"] = key("copy", "the answer: the string, or its reverse")


class Copying(Task):
    """Every symbol of the answer is predicted."""

    options, title = CopyingOptions, "copying"

    def _prepare(self, options: CopyingOptions) -> None:
        self._symbols, self._string, self._back = (
            options.symbols,
            options.string,
            options.direction == "reverse",
        )
        self.columns = options.string
        self.length = 2 * options.string + 1
        self.answers = range(options.string + 1, self.length)
        self.vocabulary = options.symbols + 1
        self.guess = alike(self.vocabulary, range(options.symbols))

    def make(self, random: Words) -> Tokens:
        string = below(random, self._symbols).astype(np.int64)
        mark: Tokens = np.full((len(string), 1), self._symbols, dtype=np.int64)
        return np.concatenate([string, mark, string[:, ::-1] if self._back else string], axis=1)
