"""The place between the gradient and the update, where an update can be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class Gate:
    """Stands before the optimizer's step and asks once a step, when the gradient's norm is known.

    A closed gate leaves masters, moments and their counters as they are. All
    that an engine does around it goes on: gradients are dropped and buffers let
    go as after any step, so that it works alike at every ZeRO stage and in a
    pipeline.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._question: Callable[[], bool] | None = None
        self._answer: bool | None = None
        step = optimizer.step

        def gated() -> object:
            return step() if self.open() else None

        optimizer.step = gated

    def open(self) -> bool:
        """The answer to this step's question, which is asked at the first call."""
        if self._answer is None:
            assert self._question is not None, "the optimizer steps outside of a step"
            self._answer = self._question()
        return self._answer

    @contextmanager
    def asking(self, question: Callable[[], bool]) -> Iterator[None]:
        """While the block runs one step, ``question`` decides; it is asked exactly once, by every rank."""
        self._question, self._answer = question, None
        yield
        # Where the engine itself refused a gradient that is not finite, the optimizer was never called.
        self.open()
        self._question = None
