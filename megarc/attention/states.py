"""States of a fixed size that recurrent layers keep of each text while a model decodes, beside keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

StateShapes = tuple[tuple[int, ...], ...]
"""The shapes of one layer's states of one text; none where the layer keeps keys and values alone."""


class States:
    """Float32 (or wider) buffers of every layer, made once.

    Args:
        shapes: of each layer.
    """

    def __init__(
        self, shapes: Sequence[StateShapes], texts: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        wide = torch.promote_types(dtype, torch.float32)
        self._layers = [
            [torch.zeros((texts, *shape), dtype=wide, device=device) for shape in layer] for layer in shapes
        ]

    @property
    def empty(self) -> bool:
        """Whether no layer keeps any."""
        return not any(self._layers)

    def of(self, layer: int, texts: Tensor | slice = slice(None)) -> list[Tensor]:
        """Of some texts, [texts, ..] each."""
        return [state[texts] for state in self._layers[layer]]

    def put(self, layer: int, new: Sequence[Tensor], texts: Tensor | slice = slice(None)) -> None:
        """Of the same texts, after more rows."""
        for state, value in zip(self._layers[layer], new, strict=True):
            state[texts] = value.to(state.dtype)

    def move(self, source: int, target: int) -> None:
        """The text ``source`` goes on as ``target``."""
        for layer in self._layers:
            for state in layer:
                state[target] = state[source]

    def repeated(self, each: int) -> States:
        """A copy in which every text stands ``each`` times, one beside the other."""
        made = States((), 0, torch.float32, "cpu")
        made._layers = [[state.repeat_interleave(each, 0) for state in layer] for layer in self._layers]
        return made
