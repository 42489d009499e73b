"""The row split: [R | C] attention from two calls whose rows are disjoint, so that nothing is merged.

    the r rows of R  x  the r keys of R       no mask
    the c rows of C  x  all n keys            causal, aligned to the bottom right

Together they compute exactly the allowed pairs. It asks for a flash attention
whose causal mask is aligned to the bottom right where rows are fewer than keys.
Each part's output and log-sum-exp are those of its rows; in the backward pass
the shares of the keys of R add up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megarc.attention.column import Flash


def forward(
    flash: Flash, q: Tensor, k: Tensor, v: Tensor, recent: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Output ``[B, H, n, d]`` and log-sum-exp ``[B, H, n]``."""
    if recent == 0:
        return flash.forward(q, k, v, True, scale)
    head = slice(0, recent)
    out, lse = flash.forward(q[:, :, head], k[:, :, head], v[:, :, head], False, scale)
    if recent == q.shape[2]:
        return out, lse
    out_c, lse_c = flash.forward(q[:, :, recent:], k, v, True, scale)
    return torch.cat([out, out_c], dim=2), torch.cat([lse, lse_c], dim=2)


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
    if recent == q.shape[2]:
        return flash.backward(grad, q, k, v, out, lse, False, scale)
    head, tail = slice(0, recent), slice(recent, None)
    grad_q, grad_k, grad_v = flash.backward(
        grad[:, :, tail], q[:, :, tail], k, v, out[:, :, tail], lse[:, :, tail], True, scale
    )
    parts = [tensor[:, :, head] for tensor in (grad, q, k, v, out, lse)]
    grad_q_r, grad_k_r, grad_v_r = flash.backward(*parts, False, scale)  # type: ignore[call-arg]
    grad_k[:, :, head] += grad_k_r
    grad_v[:, :, head] += grad_v_r
    return torch.cat([grad_q_r, grad_q], dim=2), grad_k, grad_v
