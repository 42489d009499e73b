"""Multi-query associative recall: pairs of key and value, then keys whose values are asked.

Arora et al. 2023 ("Zoology", 2312.04927, theorem 4.1 and section 4): attention recalls at a width that does not depend
on the number of pairs; a recurrent mixer needs a state that grows with it.

    token    0   1   2   3  ..  2N   2N+1  2N+2 ..
    holds    k   v   k   v  ..  k    v     k  ..        keys of a sample differ
"""

from __future__ import annotations

import numpy as np

from megarc.config import key
from megarc.data.counter_random import Words, below
from megarc.errors import UserError
from megarc.science.tasks.task import Task, TaskOptions, Tokens, alike, shuffled


class RecallOptions(TaskOptions):
    """Pairs and questions."""

    pairs: int = key(8, "of a sample", ge=1)
    questions: int = key(4, "of a sample, about different pairs", ge=1)
    keys: int = key(16, "that there are", ge=1, le=65_536)
    values: int = key(16, "that there are", ge=2, le=65_536)


class Recall(Task):
    """Every value that is asked is predicted."""

    options, title = RecallOptions, "recall"

    def _prepare(self, options: RecallOptions) -> None:
        if not options.questions <= options.pairs <= options.keys:
            raise UserError(
                f"options of recall: questions ({options.questions}) may be at most pairs ({options.pairs}), and "
                f"pairs at most keys ({options.keys})"
            )
        self._pairs, self._questions = options.pairs, options.questions
        self._keys, self._values = options.keys, options.values
        self.columns = options.keys + 2 * options.pairs
        self.length = 2 * (options.pairs + options.questions)
        self.answers = range(2 * options.pairs + 1, self.length, 2)
        self.vocabulary = options.keys + options.values
        self.guess = alike(self.vocabulary, range(options.keys, self.vocabulary))

    def make(self, random: Words) -> Tokens:
        first, value, order = np.split(random, [self._keys, self._keys + self._pairs], axis=1)
        keys = shuffled(first, self._keys, self._pairs)
        values = self._keys + below(value, self._values).astype(np.int64)
        asked = shuffled(order, self._pairs, self._questions)
        pairs = np.stack([keys, values], axis=2)
        questions = np.take_along_axis(pairs, asked[:, :, None], axis=1)
        return np.concatenate([pairs, questions], axis=1).reshape(len(random), -1)
