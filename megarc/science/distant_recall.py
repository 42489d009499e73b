"""Recall over a distance: a long text of pairs, key and value, of which a window sees the newest in R.

A text has ``pairs`` pairs; keys are all different, and each value is one of as many numbers. The window's R holds the
newest ``recent`` tokens of the text, and C asks for the values of ``causal`` / 2 keys, drawn from all of the text:

    R    .. k v  k v  k v        C    k ? k ? ..        loss on the rows that hold a key asked for

What lies before R cannot be answered, so that of a text of n tokens a window can answer the share recent / n, and
guesses the rest. (Arora et al. 2023, 2312.04927, ask such questions behind a text that is seen whole.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from megarc.data import Facts, Sample, SourceConfig
from megarc.data.counter_random import key_of
from megarc.errors import UserError
from megarc.window import Window

Integers = npt.NDArray[np.int64]


class DistantRecall:
    """Samples of the task, as many as anyone wants: sample k depends on (seed, k) and the numbers below only.

    Args:
        pairs: of the text, and values that there are.

    Raises:
        UserError: where the window's R is longer than the text, or parts a pair.
    """

    def __init__(self, window: Window, pairs: int, seed: int) -> None:
        if window.recent > 2 * pairs or window.recent % 2 or window.causal % 2:
            raise UserError(
                f"distant_recall: a text of {pairs} pairs has {2 * pairs} tokens, two a pair; the window is {window}: "
                "R must be no longer, and R and C even"
            )
        if window.causal // 2 > pairs or window.stride != window.causal:
            raise UserError(f"distant_recall: C of {window} must bear loss, and ask for {pairs} keys at most")
        self.window, self.pairs, self._key = window, pairs, key_of("distant recall", seed)
        self.digest = f"distant-recall-{pairs}-{seed}-{window}"
        self.facts = Facts("distant recall", vocabulary=2 * pairs)
        self._weights: npt.NDArray[np.float32] = np.zeros(window.stride, dtype=np.float32)
        self._weights[::2] = 1.0

    def __len__(self) -> int:
        return 2**40

    def read(self, k: int) -> Sample:
        """Sample k."""
        draws = np.random.Generator(np.random.Philox(key=[self._key, k]))
        keys = draws.permutation(self.pairs)
        values = self.pairs + draws.integers(0, self.pairs, self.pairs)
        text = np.stack([keys, values], 1).reshape(-1)
        asked = draws.choice(self.pairs, self.window.causal // 2, replace=False)
        questions = np.stack([keys[asked], values[asked]], 1).reshape(-1)
        last = text[:1]  # behind the last row; a target without weight
        begun = len(text) - self.window.recent
        tokens = np.concatenate([text[begun:], questions, last]).astype(np.int32)
        return Sample(tokens, self._weights)


def make_distant_recall(config: SourceConfig, window: Window) -> DistantRecall:
    """The task as a run names it: ``{kind: distant_recall, options: {pairs: 256, seed: 0}}``."""
    options = {"pairs": 64, "seed": 0} | config.options
    wrong = options.keys() - {"pairs", "seed"} or not all(type(value) is int for value in options.values())
    if wrong or options["pairs"] < 1:
        raise UserError(f"distant_recall takes pairs and seed, whole numbers; given: {config.options}")
    return DistantRecall(window, options["pairs"], options["seed"])
