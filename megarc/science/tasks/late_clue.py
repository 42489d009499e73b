"""A late clue: pointers whose meaning depends on a clue, which stands behind them or, as a control, before them.

Place i of 24 holds a place g(i) before it. With the clue k, which is 0, 1 or 2, f(i) = max(g(i) - k, 0). Asked are f,
f^2 and f^4. Rows that know the clue can work out f in one layer, f^2 in the second, and so the answering row f^4 in the
third: each layer squares the function. Where no row before the clue can know it, which is so under a causal mask, the
answering row goes on alone, one step a layer: f^3 is all that three layers reach.

    token    0 .. 23        24     25  26     27  28     29  30      31  32   ..
    holds    g(0)..g(23)    clue   s   f(s)   s   f(s)   s   f^2(s)  s   f^2  and four pairs s, f^4(s)
             clue  g(0)..g(23)     ...            clue: early
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from megarc.config import key
from megarc.data.counter_random import Words, below
from megarc.science.tasks.task import Task, TaskOptions, Tokens, shuffled

PLACES, CLUES, LONGEST_JUMP, LATE_PLACES = 24, 3, 3, 9
POWERS = (1, 1, 2, 2, 4, 4, 4, 4)
_HARD = POWERS.index(4)


class LateClueOptions(TaskOptions):
    """Where the clue stands, and which answers count."""

    clue: Literal["late", "early"] = key("late", "behind the pointers, or before them")
    asked: Literal["all", "four"] = key("all", "the answers with a loss: all, or those of f^4")


class LateClue(Task):
    """Ids: places, then clues. f and f^2 are asked anywhere, f^4 at different ones of the last nine places."""

    options, title = LateClueOptions, "late clue"

    def _prepare(self, options: LateClueOptions) -> None:
        self._late = options.clue == "late"
        self.columns = PLACES + 1 + _HARD + LATE_PLACES
        self.length = PLACES + 1 + 2 * len(POWERS)
        first = 0 if options.asked == "all" else _HARD
        self.answers = range(PLACES + 2 + 2 * first, self.length, 2)
        self.vocabulary = PLACES + CLUES
        self.guess = np.stack([_answers_of(power, self.vocabulary) for power in POWERS[first:]])

    def make(self, random: Words) -> Tokens:
        jumps, clue, easy, hard = np.split(random, np.cumsum([PLACES, 1, _HARD]), axis=1)
        pointers = np.maximum(np.arange(PLACES) - 1 - below(jumps, LONGEST_JUMP).astype(np.int64), 0)
        shift = below(clue, CLUES).astype(np.int64)
        meaning = np.maximum(pointers - shift, 0)
        late = PLACES - 1 - shuffled(hard, LATE_PLACES, len(POWERS) - _HARD)
        asked = np.concatenate([below(easy, PLACES).astype(np.int64), late], axis=1)
        answers = asked.copy()
        for step in range(max(POWERS)):
            going = np.asarray(POWERS) > step
            answers[:, going] = np.take_along_axis(meaning, answers[:, going], axis=1)
        pairs = np.stack([asked, answers], axis=2).reshape(len(random), -1)
        text = [pointers, PLACES + shift] if self._late else [PLACES + shift, pointers]
        return np.concatenate([*text, pairs], axis=1)


def _answers_of(power: int, ids: int) -> npt.NDArray[np.float64]:
    """How often each place is f^power of an asked one: the places on the way differ, so the jumps are independent."""
    shares: npt.NDArray[np.float64] = np.zeros(ids)
    places = range(PLACES - LATE_PLACES, PLACES) if power == max(POWERS) else range(PLACES)
    for clue in range(CLUES):
        here = np.zeros(PLACES)
        here[places.start : places.stop] = 1 / len(places)
        for _ in range(power):
            there = np.zeros(PLACES)
            for place, share in enumerate(here):
                for jump in range(1, LONGEST_JUMP + 1):
                    there[max(max(place - jump, 0) - clue, 0)] += share / LONGEST_JUMP
            here = there
        shares[:PLACES] += here / CLUES
    return shares
