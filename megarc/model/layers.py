"""The parts of which blocks are built, each split over the tensor group or held whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megarc.model.parameter_record import Kind, bias, matrix, vector
from megarc.parallel import TensorParallel

Linear = Callable[[Tensor, Tensor], Tensor]
"""``(x, weight)`` -> x times weight transposed: torch's, or in fp8."""


class Projection(nn.Module):
    """A layer that multiplies rows by its ``weight``; the block says with which product.

    Attributes:
        own_type: whether the product stays in the model's type where others are in fp8.
    """

    def __init__(self, own_type: bool = False) -> None:
        super().__init__()
        self.linear: Linear = F.linear
        self.own_type = own_type


class ColumnLinear(Projection):
    """``x W^T (+ b)``, ``W`` [outputs, inputs] split along outputs: each rank has some of them."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kind: Kind,
        tensor: TensorParallel,
        parts: int = 1,
        *,
        biased: bool = False,
        shared_out: bool = False,
        own_type: bool = False,
    ) -> None:
        super().__init__(own_type)
        assert not (biased and parts > 1), "a bias of several parts is not cut yet"
        self.tensor = tensor
        self.weight = matrix(outputs, inputs, kind, tensor, split=0, parts=parts, shared_out=shared_out)
        self.bias = bias(outputs) if biased else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x, self.weight)
        if self.bias is None:
            return y
        return y + self.tensor.shared(self.bias).chunk(self.tensor.size)[self.tensor.rank]


class RowLinear(Projection):
    """``x W^T (+ b)``, ``W`` [outputs, inputs] split along inputs: each rank has a summand."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kind: Kind,
        tensor: TensorParallel,
        parts: int = 1,
        *,
        biased: bool = False,
        shared_out: bool = False,
    ) -> None:
        super().__init__()
        self.tensor = tensor
        self.weight = matrix(outputs, inputs, kind, tensor, split=1, parts=parts, shared_out=shared_out)
        self.bias = bias(outputs) if biased else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.tensor.leave(self.linear(x, self.weight))
        if self.bias is None:
            return y
        # Added once, behind the sum; where rows are split, each rank adds it to its own rows.
        return y + (self.tensor.shared(self.bias) if self.tensor.sequence else self.bias)


class Norm(nn.Module):
    """RMSNorm with a gain, over the last dimension.

    ``partial``: the ranks of the tensor group normalise different things, or
    use what they normalise for different things, so that the gain's gradients
    must be summed. ``scale`` multiplies the gain: a constant of the parametrization.
    """

    def __init__(
        self, width: int, epsilon: float, tensor: TensorParallel, partial: bool, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.epsilon, self.tensor, self.partial, self.scale = epsilon, tensor, partial, scale
        self.weight = vector(width)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.tensor.shared(self.weight) if self.partial else self.weight
        if self.scale != 1.0:
            weight = weight * self.scale
        return F.rms_norm(x, weight.shape, weight, self.epsilon)


class HeadsNorm(nn.Module):
    """RMSNorm over all heads together, of which each tensor rank has some; its gain is held whole."""

    def __init__(self, heads: int, width: int, epsilon: float, tensor: TensorParallel) -> None:
        super().__init__()
        self.heads, self.width, self.epsilon, self.tensor = heads, width, epsilon, tensor
        self.weight = vector(heads * width)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [batch, heads of this rank, rows, width] -> the same shape."""
        tensor, own = self.tensor, x.shape[1]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        squares = wide.square().sum((1, 3), keepdim=True)
        # Every rank uses the sum for its own heads, so its gradients are summed as well. Where a head
        # is on several ranks, it is counted as often.
        squares = tensor.shared(tensor.sum(squares)) / (own * tensor.size * self.width)
        gain = tensor.shared(self.weight).view(self.heads, 1, self.width)
        first = tensor.rank * self.heads // tensor.size
        normal = (wide * torch.rsqrt(squares + self.epsilon)).to(x.dtype)
        return normal * gain[first : first + own]


def _rows_of(weight: Tensor, ids: Tensor) -> Tensor:
    """Rows ``ids`` [..] of ``weight``: [.., width].

    On a CPU torch 2.13 sums the gradient of ``F.embedding`` in the weight's type, so that in bf16 that of a frequent
    token stops growing (findings/bf16-gradients-stop-at-256.sh). It sums that of ``index_select`` in float32.
    """
    if weight.device.type == "cpu" and weight.dtype != torch.float32:
        return weight.index_select(0, ids.flatten()).unflatten(0, ids.shape)
    return F.embedding(ids, weight)


class Embedding(nn.Module):
    """A vector for each token id; each rank has some of the ids."""

    def __init__(self, tokens: int, width: int, tensor: TensorParallel) -> None:
        super().__init__()
        self.tensor = tensor
        self.weight = matrix(tokens, width, "embedding", tensor, split=0)

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens`` [batch, rows] -> [batch, rows (or this rank's part of them), width]."""
        if self.tensor.size == 1:
            return _rows_of(self.weight, tokens)
        local = tokens - first_token(self.weight, self.tensor)
        elsewhere = (local < 0) | (local >= len(self.weight))
        found = _rows_of(self.weight, local.masked_fill(elsewhere, 0))
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
        return _rows_of(weight, self.tensor.part(positions, positions.dim() - 1))


def first_token(weight: Tensor, tensor: TensorParallel) -> int:
    """The first token id of this rank's shard of embedding or head, ``weight`` [ids, hidden]."""
    return tensor.rank * weight.shape[0]
