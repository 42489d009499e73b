"""The row split on the flash attention inside torch (FlashAttention 2), for GPUs before sm_90.

Its causal mask is aligned to the bottom right. Masks that differ between samples
go to our own kernel (``fused.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from megarc.attention import cuda, fused, row
from megarc.attention.mask import Mask
from megarc.attention.operator import operator

NAME = "split_flash"

_flash = torch.ops.aten._scaled_dot_product_flash_attention
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_backward


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    return cuda.refuse(device, dtype, head_dim, capability=(8, 0), largest=256, multiple=8)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float) -> Tensor:
    """Attention of ``q [B, H, n, d]`` over ``k``, ``v`` ``[B, Hkv, n, d]``."""
    return (_attend if mask.uniform else fused.attend)(q, k, v, mask, scale)


class TorchFlash:
    """FlashAttention 2 as the splits take it."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
        out, lse, *_ = _flash(q, k, v, 0.0, causal, False, scale=scale)
        return out, lse

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
        seed = torch.zeros(2, dtype=torch.uint64, device=q.device)  # of a dropout that there is not
        grads: tuple[Tensor, Tensor, Tensor] = _flash_backward(
            grad, q, k, v, out, lse.contiguous(), None, None, q.shape[2], k.shape[2], 0.0, causal,
            seed, seed, scale=scale,
        )  # fmt: skip
        return grads


def _forward(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float) -> tuple[Tensor, Tensor]:
    return row.forward(TorchFlash(), q, k, v, mask.recent, scale)


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, mask: Mask, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return row.backward(TorchFlash(), grad, q, k, v, out, lse, mask.recent, scale)


_attend = operator("split_flash", _forward, _backward)
