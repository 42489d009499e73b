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

from megarc.attention.attention_call import Grads, Inputs, Outputs
from megarc.attention.column_split import Flash


def forward(flash: Flash, call: Inputs, recent: int) -> tuple[Tensor, Tensor]:
    """Output ``[B, H, n, d]`` and log-sum-exp ``[B, H, n]``."""
    if recent == 0:
        return flash.forward(call, True)
    head = slice(recent)
    out, lse = flash.forward(call.part(head, head), False)
    if recent == call.rows:
        return out, lse
    out_c, lse_c = flash.forward(call.part(slice(recent, None)), True)
    return torch.cat([out, out_c], dim=2), torch.cat([lse, lse_c], dim=2)


def backward(flash: Flash, call: Inputs, outputs: Outputs, recent: int) -> Grads:
    """Gradients of q, k and v, shaped as they are."""
    if recent == 0:
        return flash.backward(call, outputs, True)
    if recent == call.rows:
        return flash.backward(call, outputs, False)
    head, tail = slice(recent), slice(recent, None)
    grad_q, grad_k, grad_v = flash.backward(call.part(tail), outputs.part(tail), True)
    grad_q_r, grad_k_r, grad_v_r = flash.backward(call.part(head, head), outputs.part(head), False)
    grad_k[:, :, head] += grad_k_r
    grad_v[:, :, head] += grad_v_r
    return torch.cat([grad_q_r, grad_q], dim=2), grad_k, grad_v
