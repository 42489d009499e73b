"""Pointer chasing: a task on which the mask decides.

R spells out a function f on 0..23 that only steps forward; C asks for f(s) and
then for f(f(f(s))) at a few places s:

    token    0 .. 23          24  25    ..  30  31    32  33        ..  38  39        40
    holds    f(0) .. f(23)    s   f(s)      s   f(s)  s   f^3(s)        s   f^3(s)    END
             R                C
    loss rows                 24        ..  30        32            ..  38            -

Only the 8 answers are predicted: row 24 holds the first s and predicts f(s). The
first s is the boundary's token, which is given. f(i) = min(i + U{1..5}, 23), a
fresh one for every sample.

With ``order: backward`` everything is mirrored: place i is called 23 - i, and f steps backward. Then a causal row can
look at row f(s), which stands before it.

Where every row of R sees all of R, row s can look ahead to row f(s), and so work
out f(f(s)), before any question is asked. Under a causal mask no row may look
ahead, so that all three steps are left to the one row that answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.data import Facts, Sample, Samples, SourceConfig
from megarc.data.counter_random import Words, below, key_of, table
from megarc.errors import UserError
from megarc.science.chance import Shares, determined
from megarc.window import Window

PLACES = 24
PAIRS = 4
LONGEST_STEP = 5
DISTINCT = 9  # f^3 is asked at different places of 0..8, which mostly lie three steps from the end
END = PLACES

Integers: TypeAlias = npt.NDArray[np.int64]


class PointerChase:
    """Samples of the task, as many as anyone wants: sample k depends on (seed, k) only.

    Raises:
        UserError: where the window is not the task's.
    """

    window = Window(recent=PLACES, causal=4 * PAIRS, stride=4 * PAIRS)
    vocabulary = PLACES + 1
    one_step_rows = tuple(range(PLACES, PLACES + 2 * PAIRS, 2))
    """The rows that answer f(s)."""
    three_step_rows = tuple(range(PLACES + 2 * PAIRS, PLACES + 4 * PAIRS, 2))
    """The rows that answer f(f(f(s))): accuracy is counted here."""

    def __init__(self, window: Window, seed: int, *, backward: bool = False, hard_only: bool = False) -> None:
        if (window.rows, window.stride) != (self.window.rows, self.window.stride):
            raise UserError(
                f"the pointer-chasing task has windows {self.window}, or causal ones of as many rows "
                f"and the same stride; not {window}"
            )
        self._key, self._backward = key_of("pointer chase", seed), backward
        kinds = ["backward"] * backward + ["three-steps"] * hard_only
        self.digest = "-".join(["pointer-chase", str(seed), *kinds])
        asked = self.three_step_rows if hard_only else self.one_step_rows + self.three_step_rows
        shares = np.stack([_answers_of(1 if row in self.one_step_rows else 3) for row in asked])
        note = determined(len(asked), shares)  # backward, places have other names and the same shares
        self.facts = Facts(" ".join(["pointer chase", *kinds]), vocabulary=self.vocabulary, note=note)
        answers = [row - window.loss_rows.start for row in asked]
        self._weights: npt.NDArray[np.float32] = np.zeros(window.stride, dtype=np.float32)
        self._weights[answers] = 1.0

    def __len__(self) -> int:
        return 2**40

    def read(self, k: int) -> Sample:
        """Sample k."""
        samples = self.read_many(np.asarray([k]))
        return Sample(samples.tokens[0], self._weights)

    def read_many(self, k: Integers) -> Samples:
        """Samples k [B]."""
        word = table(self._key, k, PLACES + PAIRS + DISTINCT)
        steps, asked, shuffled = np.split(word, [PLACES, PLACES + PAIRS], axis=1)
        function = _forward(steps)
        one = below(asked, PLACES).astype(np.int64)
        three = np.argsort(shuffled, axis=1)[:, :PAIRS]
        tokens: npt.NDArray[np.int32] = np.full((len(k), self.window.tokens), END, dtype=np.int32)
        tokens[:, :PLACES] = function
        for row, place, power in ((self.one_step_rows[0], one, 1), (self.three_step_rows[0], three, 3)):
            tokens[:, row : row + 2 * PAIRS : 2] = place
            tokens[:, row + 1 : row + 1 + 2 * PAIRS : 2] = _applied(function, place, power)
        if self._backward:
            tokens[:, :-1] = PLACES - 1 - tokens[:, :-1]
            tokens[:, :PLACES] = tokens[:, PLACES - 1 :: -1]
        return Samples(tokens, weights=np.broadcast_to(self._weights, (len(k), len(self._weights))))


def make_pointer_chase(config: SourceConfig, window: Window) -> PointerChase:
    """The task as a run names it: ``{kind: pointer_chase, options: {seed: 0, order: forward, asked: all}}``."""
    given = {"seed": 0, "order": "forward", "asked": "all"} | config.options
    seed, order, asked = given.pop("seed"), given.pop("order"), given.pop("asked")
    if (
        given
        or type(seed) is not int
        or order not in ("forward", "backward")
        or asked not in ("all", "three")
    ):
        raise UserError(
            "pointer_chase takes the options seed, a whole number, order, forward or backward, and asked, all or three "
            f"(which answers have a loss); given: {config.options}"
        )
    return PointerChase(window, seed, backward=order == "backward", hard_only=asked == "three")


def accuracy(task: PointerChase, predict: Callable[[Integers], Integers], samples: int) -> dict[str, float]:
    """The share of right answers on ``task``'s first ``samples`` samples, for one step and for three.

    Args:
        predict: the likeliest next token at every row: [B, n] tokens -> [B, n].
    """
    tokens = task.read_many(np.arange(samples)).tokens.astype(np.int64)
    right = predict(tokens[:, :-1]) == tokens[:, 1:]
    rows = {"one_step": task.one_step_rows, "three_steps": task.three_step_rows}
    return {name: float(right[:, list(chosen)].mean()) for name, chosen in rows.items()}


def _forward(steps: Words) -> Integers:
    """f [B, 24] from random words [B, 24]: each place steps forward by 1 to 5, the last ones to the end."""
    jump = 1 + below(steps, LONGEST_STEP).astype(np.int64)
    return np.minimum(np.arange(PLACES) + jump, PLACES - 1)


def _applied(function: Integers, place: Integers, times: int) -> Integers:
    """f applied ``times`` to places [B, 4]."""
    for _ in range(times):
        place = np.take_along_axis(function, place, axis=1)
    return place


def _answers_of(power: int) -> Shares:
    """How often each place is f^power of an asked one: the places on the way differ, so their steps are independent."""
    asked = PLACES if power == 1 else DISTINCT
    here = np.zeros(PLACES)
    here[:asked] = 1 / asked
    for _ in range(power):
        there = np.zeros(PLACES)
        for place, share in enumerate(here):
            for step in range(1, LONGEST_STEP + 1):
                there[min(place + step, PLACES - 1)] += share / LONGEST_STEP
        here = there
    return here
