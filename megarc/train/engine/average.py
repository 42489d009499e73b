"""Weights averaged along the run: float32, laid out and shared out as the masters are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from megarc.train.engine.places import pieces, refresh

if TYPE_CHECKING:
    from megarc.train.engine.engine import Engine

NAME = "average"


class Average:
    """Stands with the optimizer's state, so that checkpoints hold it and reshard it. Nothing of it is communicated."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._flats = {id(piece.flat): piece.flat for piece in pieces(engine)}
        for flat in self._flats.values():
            engine.optimizer.state[flat][NAME] = flat.detach().to(torch.float32, copy=True)

    @torch.no_grad()
    def update(self, share: Tensor, bad: Tensor) -> None:
        """Takes ``share`` of today's weights in, or nothing where the step was ``bad``; both are scalars."""
        weight = torch.where(bad, 0.0, share)
        for flat, average in self._both():
            average.lerp_(flat, weight.to(average.device))

    @torch.no_grad()
    def restart(self) -> None:
        """Makes it today's weights."""
        for flat, average in self._both():
            average.copy_(flat)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While the block runs, the model computes with the average. All ranks together."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for flat, average in self._both():
            weights = flat.detach().clone()
            flat.copy_(average)
            average.copy_(weights)
        refresh(self.engine)

    def _both(self) -> Iterator[tuple[Tensor, Tensor]]:
        for flat in self._flats.values():
            yield flat.data, self.engine.optimizer.state[flat][NAME]
