"""The parts of which blocks are built, each split over the tensor group or held whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megarc.model.parameter_record import Kind, matrix, vector
from megarc.parallel import TensorParallel

Linear = Callable[[Tensor, Tensor], Tensor]
"""``(x, weight)`` -> x times weight transposed: torch's, or in fp8."""


class Projection(nn.Module):
    """A layer that multiplies rows by its ``weight``; the block says with which product."""

    def __init__(self) -> None:
        super().__init__()
        self.linear: Linear = F.linear


class ColumnLinear(Projection):
    """``x W^T`` without bias, ``W`` [outputs, inputs] split along outputs: each rank has some of them."""

    def __init__(self, inputs: int, outputs: int, kind: Kind, tensor: TensorParallel, parts: int = 1) -> None:
        super().__init__()
        self.weight = matrix(outputs, inputs, kind, tensor, split=0, parts=parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x, self.weight)


class RowLinear(Projection):
    """``x W^T`` without bias, ``W`` [outputs, inputs] split along inputs: each rank has a summand."""

    def __init__(self, inputs: int, outputs: int, kind: Kind, tensor: TensorParallel) -> None:
        super().__init__()
        self.tensor = tensor
        self.weight = matrix(outputs, inputs, kind, tensor, split=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.tensor.leave(self.linear(x, self.weight))


class Norm(nn.Module):
    """RMSNorm with a gain, over the last dimension.

    ``partial``: the ranks of the tensor group normalise different things, or
    use what they normalise for different things, so that the gain's gradients
    must be summed.
    """

    def __init__(self, width: int, epsilon: float, tensor: TensorParallel, partial: bool) -> None:
        super().__init__()
        self.epsilon, self.tensor, self.partial = epsilon, tensor, partial
        self.weight = vector(width)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.tensor.shared(self.weight) if self.partial else self.weight
        return F.rms_norm(x, weight.shape, weight, self.epsilon)


class Embedding(nn.Module):
    """A vector for each token id; each rank has some of the ids."""

    def __init__(self, tokens: int, width: int, tensor: TensorParallel) -> None:
        super().__init__()
        self.tensor = tensor
        self.weight = matrix(tokens, width, "embedding", tensor, split=0)

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens`` [batch, rows] -> [batch, rows (or this rank's part of them), width]."""
        if self.tensor.size == 1:
            return F.embedding(tokens, self.weight)
        local = tokens - first_token(self.weight, self.tensor)
        elsewhere = (local < 0) | (local >= len(self.weight))
        found = F.embedding(local.masked_fill(elsewhere, 0), self.weight)
        return self.tensor.leave(found.masked_fill(elsewhere[..., None], 0.0))


class Positions(nn.Module):
    """A learned vector for each row, held whole."""

    def __init__(self, rows: int, width: int, tensor: TensorParallel) -> None:
        super().__init__()
        self.tensor = tensor
        self.weight = matrix(rows, width, "embedding", tensor)

    def forward(self, first: int, rows: int, positions: Tensor | None = None) -> Tensor:
        """Vectors of rows ``first ..``, or of ``positions`` [batch, rows].

        [(batch,) rows (or this rank's part of them), width]
        """
        weight = self.tensor.shared(self.weight) if self.tensor.sequence else self.weight
        if positions is None:
            positions = torch.arange(first, first + rows, device=weight.device)
        return F.embedding(self.tensor.part(positions, positions.dim() - 1), weight)


def first_token(weight: Tensor, tensor: TensorParallel) -> int:
    """The first token id of this rank's shard of embedding or head, ``weight`` [ids, hidden]."""
    return tensor.rank * weight.shape[0]
