"""Iterated functions: a task on which thinking ahead must help.

R spells out a cycle f on 10 places, an edge a token, in random order. C begins
with a place s, the boundary, and goes on in one of two ways:

    token    0 .. h-11   h-10 .. h-1     h    h+1   h+2 ...                     (h rows of R)
    holds    PAD         edges i->f(i)   s    :     f(s) f(f(s)) ... f^5(s) PAD  the work is shown
                                         s    !     f^5(s) PAD ...               the answer alone

Five steps in one go, half way round, are more than a small model has layers for; one step a token
is easy. So whoever has read texts that show the work can know what others leave out:
a roll-out that happens to begin with ``:`` writes out the steps, one a token, and the
reader of it needs to copy the last. ``shown`` is the share of samples that show the work.
Padding is no target.
"""

from __future__ import annotations

import numpy as np

from megarc.data import Facts, Sample, Samples, SourceConfig
from megarc.data.counter_random import chance, key_of, table
from megarc.data.source import Indices
from megarc.errors import UserError
from megarc.science.chance import chance_of
from megarc.window import Window

PLACES = 10
STEPS = 5
HALF = 0.5
_EDGES = PLACES  # ids below it are places; then edges i->j, as i * 10 + j
PAD = _EDGES + PLACES * PLACES
SHOWN, DIRECT = PAD + 1, PAD + 2
_RESERVED = PAD + 3
_NAMES = ("<ro>", "</ro>", *(f"<spare{number}>" for number in range(10)))
CAUSAL = STEPS + 1
"""Rows of C: they hold the place, the mark and four steps, and predict the mark and five steps."""


class IteratedFunction:
    """Samples of the task: sample k depends on (seed, k) only, whatever the window's R.

    Raises:
        UserError: where the window is not the task's.
    """

    vocabulary = _RESERVED + len(_NAMES)

    def __init__(self, window: Window, seed: int, shown: float = HALF) -> None:
        if window.recent < PLACES or (window.causal, window.stride) != (CAUSAL, CAUSAL):
            raise UserError(
                f"iterated functions have windows with {PLACES} rows of R or more, and causal {CAUSAL}, stride "
                f"{CAUSAL}; not {window}"
            )
        self._window, self._key, self._shown = window, key_of("iterated function", seed), shown
        part = "" if shown == HALF else f"{shown}-"
        self.digest = f"iterated-function-{seed}-{part}{window.recent}"
        reserved = {name: _RESERVED + number for number, name in enumerate(_NAMES)}
        self.facts = Facts(
            "iterated functions", vocabulary=self.vocabulary, reserved=reserved, note=_bounds(shown)
        )

    def __len__(self) -> int:
        return 2**40

    def read(self, k: int) -> Sample:
        """Sample k."""
        many = self.read_many(np.asarray([k]))
        assert many.weights is not None
        return Sample(many.tokens[0], many.weights[0])

    def read_many(self, k: Indices) -> Samples:
        """Samples k [B]."""
        word = table(self._key, k, 2 * PLACES + 1)
        order, shown_first, mode = np.split(word, [PLACES, 2 * PLACES], axis=1)
        cycle = order.argsort(axis=1)  # places in the order in which f visits them; s is the first
        following = np.roll(cycle, -1, axis=1)
        edges = np.take_along_axis(_EDGES + cycle * PLACES + following, shown_first.argsort(axis=1), axis=1)
        shown = chance(mode[:, 0], self._shown)[:, None]
        boundary, rows = self._window.recent, self._window.tokens
        tokens: Indices = np.full((len(cycle), rows), PAD, dtype=np.int64)
        tokens[:, boundary - PLACES : boundary] = edges
        tokens[:, boundary] = cycle[:, 0]
        tokens[:, boundary + 1 : boundary + 2] = np.where(shown, SHOWN, DIRECT)
        steps = cycle[:, 1 : STEPS + 1]
        answer = np.concatenate([steps[:, -1:], np.full((len(cycle), STEPS - 1), PAD)], axis=1)
        tokens[:, boundary + 2 : boundary + 2 + STEPS] = np.where(shown, steps, answer)
        weights = (tokens[:, boundary + 1 :] != PAD).astype(np.float32)
        return Samples(tokens, weights=weights)


def _bounds(shown: float) -> str:
    """Exact bounds a predicted token: nothing foretells the mark, and all else follows from R; by chance, each place
    is a tenth."""
    mark = np.array([shown, 1 - shown])
    nats, right = chance_of(mark)
    places = shown * STEPS + 1 - shown  # predicted, in the mean
    best = nats / (1 + places), (right + places) / (1 + places)
    chance = (nats + places * np.log(PLACES)) / (1 + places), (right + places / PLACES) / (1 + places)
    return "{:.4f} nats and accuracy {:.4f} at best, {:.4f} and {:.4f} by chance".format(*best, *chance)


def make_iterated_function(config: SourceConfig, window: Window) -> IteratedFunction:
    """The task as a run names it: ``{kind: iterated_function, options: {seed: 0, shown: 0.5}}``."""
    seed, shown = config.options.get("seed", 0), config.options.get("shown", HALF)
    known = type(seed) is int and isinstance(shown, int | float) and 0 <= shown <= 1
    if config.options.keys() - {"seed", "shown"} or not known:
        raise UserError(
            "iterated_function takes two options, seed, a whole number, and shown, a share; "
            f"given: {config.options}"
        )
    return IteratedFunction(window, seed, float(shown))
