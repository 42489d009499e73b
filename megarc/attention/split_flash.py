"""The row split on the flash attention inside torch (FlashAttention 2), for GPUs before sm_90.

Its causal mask is aligned to the bottom right. Masks that differ between samples
go to our own kernel (``triton_fused.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from megarc.attention import cuda_requirements, row_split, triton_fused
from megarc.attention.attention_call import Grads, Inputs, Outputs
from megarc.attention.autograd_operator import operator
from megarc.attention.mask import Mask

NAME = "split_flash"
FEWER_ROWS = True  # by our own kernel

_flash = torch.ops.aten._scaled_dot_product_flash_attention
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_backward


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    return cuda_requirements.refuse(device, dtype, head_dim, capability=(8, 0), largest=256, multiple=8)


def attend(call: Inputs, mask: Mask) -> Tensor:
    """Attention of ``q [B, H, n, d]`` over ``k``, ``v`` ``[B, Hkv, n, d]``."""
    return (_attend if mask.uniform else triton_fused.attend)(call, mask)


class TorchFlash:
    """FlashAttention 2 as the splits take it."""

    def forward(self, call: Inputs, causal: bool) -> tuple[Tensor, Tensor]:
        out, lse, *_ = _flash(call.q, call.k, call.v, 0.0, causal, False, scale=call.scale)
        return out, lse

    def backward(self, call: Inputs, outputs: Outputs, causal: bool) -> Grads:
        seed = torch.zeros(2, dtype=torch.uint64, device=call.q.device)  # of a dropout that there is not
        grads: Grads = _flash_backward(
            outputs.grad, call.q, call.k, call.v, outputs.out, outputs.lse.contiguous(), None, None,
            call.rows, call.k.shape[2], 0.0, causal, seed, seed, scale=call.scale,
        )  # fmt: skip
        return grads


def _forward(call: Inputs, mask: Mask) -> tuple[Tensor, Tensor]:
    return row_split.forward(TorchFlash(), call, mask.recent)


def _backward(call: Inputs, mask: Mask, outputs: Outputs) -> Grads:
    return row_split.backward(TorchFlash(), call, outputs, mask.recent)


_attend = operator("split_flash", _forward, _backward)
