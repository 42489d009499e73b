"""Two-sum and three-sum, asked directly: is there a number (a pair) that with the asked one sums to 0 modulo M?

Sanford, Hsu, Telgarsky 2023 (2306.02896, theorems 6 and 7): one layer of attention finds pairs (Match2) with a width
logarithmic in N; for triples (Match3) its width times heads times bits must grow polynomially with N.

    token    0 .. N-1   N    N+1  N+2  N+3 ..
    holds    x_1..x_N   q    yes  q    no  ..        numbers below M; yes: some x_i = -q; some x_i + x_j = -q, i != j
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np
import numpy.typing as npt

from megarc.config import key
from megarc.data.counter_random import Words, below
from megarc.errors import UserError
from megarc.science.tasks.task import Task, TaskOptions, Tokens

_LARGEST = 4096


class KSumOptions(TaskOptions):
    """How many numbers sum, and of how many."""

    terms: Literal[2, 3] = key(2, "numbers that sum to 0, the asked one among them")
    numbers: int = key(12, "of a sample", ge=2, le=64)
    modulus: int | None = key(
        None, "numbers are below it, odd; null: that for which a yes is nearest to 1/2", ge=3, le=_LARGEST + 1
    )
    questions: int = key(6, "of a sample", ge=1)


class KSum(Task):
    """Answers are yes (id M) and no (id M + 1)."""

    options, title = KSumOptions, "k-sum"

    def _prepare(self, options: KSumOptions) -> None:
        if options.modulus is not None and not options.modulus % 2:
            raise UserError(f"options of k_sum: modulus is {options.modulus}; it must be odd")
        self._terms, self._numbers, self._questions = options.terms, options.numbers, options.questions
        self._modulus = options.modulus or fairest_modulus(options.terms, options.numbers)
        self.columns = options.numbers + options.questions
        self.length = options.numbers + 2 * options.questions
        self.answers = range(options.numbers + 1, self.length, 2)
        self.vocabulary = self._modulus + 2
        yes = share_of_yes(options.terms, options.numbers, self._modulus)
        self.guess = np.zeros(self.vocabulary)
        self.guess[self._modulus :] = yes, 1 - yes

    def make(self, random: Words) -> Tokens:
        values, batch = below(random, self._modulus).astype(np.int64), np.arange(len(random))[:, None]
        numbers, asked = values[:, : self._numbers], values[:, self._numbers :]
        there: npt.NDArray[np.bool_] = np.zeros((len(values), self._modulus), dtype=np.bool_)
        if self._terms == 2:
            there[batch, numbers] = True
        else:
            first, second = np.array(list(combinations(range(self._numbers), 2))).T
            there[batch, (numbers[:, first] + numbers[:, second]) % self._modulus] = True
        answers = np.where(there[batch, -asked % self._modulus], self._modulus, self._modulus + 1)
        pairs = np.stack([asked, answers], axis=2).reshape(len(values), -1)
        return np.concatenate([numbers, pairs], axis=1)


@cache
def share_of_yes(terms: int, numbers: int, modulus: int) -> float:
    """The exact probability that a question's answer is yes.

    Of pairs: residues fall into (M-1)/2 couples a, t-a and one fixed point; no pair sums to t where each couple gives
    numbers of one side only and the fixed point one number at most. Sequences of N numbers like that are counted by
    N! [z^N] (1 + z) (2 e^z - 1)^((M-1)/2).
    """
    if terms == 2:
        return 1 - (1 - 1 / modulus) ** numbers
    couples = (modulus - 1) // 2

    def without(count: int) -> int:  # n! [z^n] (2 e^z - 1)^couples
        return sum(comb(couples, k) * 2**k * (-1) ** (couples - k) * k**count for k in range(couples + 1))

    none = without(numbers) + numbers * without(numbers - 1)
    return 1 - none / modulus**numbers


def fairest_modulus(terms: int, numbers: int) -> int:
    """The odd modulus for which yes and no are nearest to equally likely; the share of yes falls with it."""
    low, high = 3, _LARGEST + 1
    while high - low > 2:
        middle = (low + high) // 4 * 2 + 1
        low, high = (middle, high) if share_of_yes(terms, numbers, middle) >= 0.5 else (low, middle)
    return min((low, high), key=lambda modulus: abs(share_of_yes(terms, numbers, modulus) - 0.5))
