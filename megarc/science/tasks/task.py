"""What all theory tasks share: options, the window's check, weights on answers, what chance gets right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.config import Config, build, key
from megarc.data import Facts, Maker, Sample, Samples, SourceConfig
from megarc.data.counter_random import Words, digest_of, key_of, table
from megarc.data.source import Indices, Weights
from megarc.errors import UserError
from megarc.science.chance import chance_of, determined
from megarc.window import Window

Tokens: TypeAlias = npt.NDArray[np.int64]


class TaskOptions(Config):
    """What every task has."""

    seed: int = key(0, "samples of another seed are other samples; held-out ones have a seed of their own")


class Task(ABC):
    """A source of samples [n + 1 tokens] whose answers are determined by what stands before them.

    So the Bayes loss is 0 nats an answer. A subclass sets the attributes in ``_prepare`` and makes samples.

    Attributes:
        options: the class of its keys.
        length: tokens of a sample.
        answers: positions of the tokens that are answers, the only ones with a loss.
        vocabulary: token ids.
        guess: the probability of each possible answer for one who knows only how often it comes, [answers, ids]
            or [ids] where all answers are alike.
        columns: random words that a sample takes.

    Raises:
        UserError: where the window has another number of rows, or an answer lies in R.
    """

    options: ClassVar[type[TaskOptions]]
    title: ClassVar[str]
    length: int
    answers: Sequence[int]
    vocabulary: int
    guess: npt.NDArray[np.float64]
    columns: int

    def __init__(self, options: TaskOptions, window: Window) -> None:
        self._prepare(options)
        self._check(window)
        keys = options.model_dump(mode="json")
        self._key = key_of(self.title, options.seed)
        self.digest = f"{self.title.replace(' ', '-')}-{digest_of(str(sorted(keys.items())))}"
        said = ", ".join(str(value) for name, value in keys.items() if name != "seed")
        self.facts = Facts(f"{self.title} ({said})", vocabulary=self.vocabulary, note=self.note)
        weights: Weights = np.zeros(window.stride, dtype=np.float32)
        weights[[place - 1 - window.loss_rows.start for place in self.answers]] = 1.0
        self._weights = weights

    @abstractmethod
    def _prepare(self, options: Any) -> None:
        """Sets the attributes; refuses options that do not fit together."""

    @abstractmethod
    def make(self, random: Words) -> Tokens:
        """Samples [B, length] from random words [B, columns]."""

    @classmethod
    def length_of(cls, options: TaskOptions) -> int:
        """Tokens of a sample with these options: one more than the rows of the window that it needs."""
        empty = object.__new__(cls)
        empty._prepare(options)
        return empty.length

    def __len__(self) -> int:
        return 2**40

    def read(self, k: int) -> Sample:
        """Sample k."""
        return Sample(self.read_many(np.asarray([k])).tokens[0], self._weights)

    def read_many(self, k: Indices) -> Samples:
        """Samples k [B]."""
        tokens = self.make(table(self._key, k, self.columns))
        return Samples(tokens, weights=np.broadcast_to(self._weights, (len(tokens), len(self._weights))))

    @property
    def chance(self) -> tuple[float, float]:
        """Nats an answer and accuracy of one who knows only how often each answer comes."""
        return chance_of(self.guess)

    @property
    def note(self) -> str:
        """The exact bounds of loss and accuracy, for a run's log."""
        return determined(len(self.answers), self.guess)

    def _check(self, window: Window) -> None:
        first = min(self.answers) - 1  # the row that predicts the first answer
        if window.rows != self.length - 1:
            raise UserError(
                f"{self.title} has samples of {self.length - 1} rows with these options; the window {window} has "
                f"{window.rows}: set window.recent + window.causal to {self.length - 1}, and window.recent to at most "
                f"{first}"
            )
        if window.loss_rows.start > first:
            raise UserError(
                f"{self.title} predicts from row {first} on, and the window {window} from row "
                f"{window.loss_rows.start} on; set window.recent to at most {first} and window.stride to at least "
                f"{self.length - 1 - first}"
            )


def maker_of(kind: str, task: type[Task]) -> Maker:
    """What makes a source of this kind from ``data``'s keys."""

    def make(config: SourceConfig, window: Window) -> Task:
        return task(build(task.options, config.options, f"options of {kind}"), window)

    return make


def alike(ids: int, among: range) -> npt.NDArray[np.float64]:
    """Each of ``among`` equally likely, of ``ids`` ids."""
    shares: npt.NDArray[np.float64] = np.zeros(ids)
    shares[among.start : among.stop] = 1 / len(among)
    return shares


def shuffled(random: Words, among: int, wanted: int) -> Tokens:
    """``wanted`` different numbers below ``among`` in random order, from words [B, among]: [B, wanted]."""
    assert random.shape[1] == among
    return random.argsort(axis=1)[:, :wanted]
