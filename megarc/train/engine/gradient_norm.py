"""The norm of gradients of any size.

On a CPU torch 2.13 adds all squares of a float32 tensor into a few running sums: the norm of 2**26 normal numbers comes
out 0.5 % too small (findings/norm-of-many-numbers.sh). Here it is the norm of the norms of pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_PIECE = 1 << 16  # numbers; the norm of so many is right to some 1e-6


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all numbers of ``tensors`` (at least one) together, a scalar in float32."""
    pieces = [piece for tensor in tensors for piece in _pieces(tensor)]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(pieces, 2.0, dtype=torch.float32)))


def _pieces(tensor: Tensor) -> Sequence[Tensor]:
    return tensor.reshape(-1).split(_PIECE) if tensor.device.type == "cpu" else (tensor,)
