"""Newton-Schulz: all singular values of a matrix brought near 1, by matrix products alone; then rows of equal norm."""

from __future__ import annotations

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic; its slope at 0 is steep, and values come to lie between 0.7 and 1.2, which serves (Jordan et al.
2024, kellerjordan.github.io/posts/muon)."""
_LEAST = 1e-7  # of a norm that is divided by


def orthogonalised(stack: Tensor, iterations: int, dtype: torch.dtype) -> Tensor:
    """Of ``stack`` [matrices, rows, columns], each alone: U V^T of its U S V^T, nearly; float32.

    Args:
        dtype: of the iteration, as ``torch.optim.Muon`` has it in bfloat16.
    """
    x = stack.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT  # the products below are as small as the shorter side
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_LEAST)
    linear, cubic, quintic = _COEFFICIENTS
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic)
        x = torch.baddbmm(x, polynomial, x, beta=linear)
    return (x.mT if tall else x).to(torch.float32)


def with_equal_rows(stack: Tensor) -> Tensor:
    """Of ``stack`` [matrices, rows, columns], each with its rows scaled to one norm, and its own norm kept.

    A row is what one neuron learns from. This is NorMuon's normalisation (Li et al. 2025, 2510.05491, algorithm 1) with
    a decay of 0: the mean square of a row is that of this step alone, so there is no state.
    """
    equal = stack / stack.norm(dim=-1, keepdim=True).clamp(min=_LEAST)  # a row of zeros stays so
    whole, now = (one.norm(dim=(-2, -1), keepdim=True) for one in (stack, equal))
    return equal * (whole / now.clamp(min=_LEAST))
