"""One-way order: s_t = s_{t-1}^2 + x_t modulo p, the talk's function that is easy in one direction.

A pass from left to right keeps one number and has degree 2 a step. A pass from right to left must keep s_T as a
function of what is still to come, a polynomial of degree 2^T, or all T tokens (Foster, "A theorist takes a look at
LLMs", 2024).

    token    0 .. T-1                   T    T+1 ..
    holds    x_1..x_T, or x_T..x_1      =    s_T           ask: end
                                             s_1 .. s_T    ask: states, each one step from the one before
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from megarc.config import key
from megarc.data.counter_random import Words, below
from megarc.errors import UserError
from megarc.science.tasks.task import Task, TaskOptions, Tokens


class OneWayOptions(TaskOptions):
    """The function, and the direction of the text."""

    modulus: int = key(5, "p, an odd prime", ge=3, le=97)
    steps: int = key(5, "T, tokens that the function reads", ge=1)
    order: Literal["forward", "backward"] = key("forward", "the text: x_1 first, or x_T first")
    ask: Literal["end", "states"] = key("end", "what is predicted: s_T alone, or s_1 .. s_T")


class OneWayOrder(Task):
    """s_0 is 0."""

    options, title = OneWayOptions, "one-way order"

    def _prepare(self, options: OneWayOptions) -> None:
        modulus = options.modulus
        if any(not modulus % divisor for divisor in range(2, modulus)):
            raise UserError(f"options of one_way_order: modulus is {modulus}; it must be a prime above 2")
        self._modulus, self._steps = modulus, options.steps
        self._forward, self._all = options.order == "forward", options.ask == "states"
        self.columns = options.steps
        self.length = options.steps + 1 + (options.steps if self._all else 1)
        self.answers = range(options.steps + 1, self.length)
        self.vocabulary = modulus + 1
        # x_t is added last and uniform, so every state is uniform.
        self.guess = np.append(np.full(modulus, 1 / modulus), 0.0)

    def make(self, random: Words) -> Tokens:
        given = below(random, self._modulus).astype(np.int64)
        states, state = np.empty_like(given), np.zeros_like(given[:, 0])
        for step in range(self._steps):
            state = (state * state + given[:, step]) % self._modulus
            states[:, step] = state
        mark: Tokens = np.full((len(given), 1), self._modulus, dtype=np.int64)
        text = given if self._forward else given[:, ::-1]
        return np.concatenate([text, mark, states if self._all else states[:, -1:]], axis=1)
