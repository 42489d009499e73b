"""The column split: [R | C] attention from two calls that any flash attention can make.

    all n rows  x  the r keys of R     no mask
    the c rows of C  x  the c keys of C    causal, square

A row of R is finished by the first; a row of C merges both by the logarithm of
its sum of exponentials. Together they compute exactly the allowed pairs:
n*r + c*(c+1)/2 = r*r + c*r + c*(c+1)/2.

The backward pass of flash attention rebuilds a part's probabilities from the
log-sum-exp, and needs the output for the row sums of grad * out. Handed the
*merged* output and log-sum-exp, each part's backward gives its share of the true
gradient; the shares of the queries add up, those of the keys stand side by side.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Flash(Protocol):
    """One flash attention: square if ``causal``; ``q [B, H, m, d]``, ``k``, ``v`` ``[B, Hkv, t, d]``."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
        """``out [B, H, m, d]`` and its log-sum-exp ``[B, H, m]``, natural, of scaled scores."""

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k, v, with ``out`` and ``lse`` taken as given."""


def forward(
    flash: Flash, q: Tensor, k: Tensor, v: Tensor, recent: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Output ``[B, H, n, d]`` and log-sum-exp ``[B, H, n]``."""
    if recent == 0:
        return flash.forward(q, k, v, True, scale)
    out, lse = flash.forward(q, k[:, :, :recent], v[:, :, :recent], False, scale)
    if recent < q.shape[2]:
        tail = slice(recent, None)
        out_c, lse_c = flash.forward(q[:, :, tail], k[:, :, tail], v[:, :, tail], True, scale)
        out[:, :, tail], lse[:, :, tail] = merge(out[:, :, tail], lse[:, :, tail], out_c, lse_c)
    return out, lse


def backward(
    flash: Flash,
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    recent: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, shaped as they are."""
    if recent == 0:
        return flash.backward(grad, q, k, v, out, lse, True, scale)
    keys, values = k[:, :, :recent], v[:, :, :recent]
    grad_q, grad_k, grad_v = flash.backward(grad, q, keys, values, out, lse, False, scale)
    if recent < q.shape[2]:
        parts = [tensor[:, :, recent:] for tensor in (grad, q, k, v, out, lse)]
        grad_q_c, grad_k_c, grad_v_c = flash.backward(*parts, True, scale)  # type: ignore[call-arg]
        grad_q[:, :, recent:] += grad_q_c
        grad_k, grad_v = torch.cat([grad_k, grad_k_c], dim=2), torch.cat([grad_v, grad_v_c], dim=2)
    return grad_q, grad_k, grad_v


def merge(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two disjoint sets of keys, from the attention over each.

    A set without any key has a log-sum-exp of -inf and weighs nothing; where
    both are empty the output is 0.
    """
    lse = torch.logaddexp(lse_a, lse_b)
    empty = lse == -torch.inf
    weight_a = torch.exp(lse_a - lse).masked_fill(empty, 0.0).unsqueeze(-1)
    weight_b = torch.exp(lse_b - lse).masked_fill(empty, 0.0).unsqueeze(-1)
    return (out_a * weight_a + out_b * weight_b).to(out_a.dtype), lse
