"""The row split on FlashAttention 4's public function, where it is installed: an option, by name.

    pip install --pre flash-attn-4        a GPU of compute capability 9.0 or later

Its causal mask is aligned to the bottom right. Autograd joins the two calls. Masks
that differ between samples go to our own kernel (``triton_fused.py``).
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from megarc.attention import cuda_requirements, triton_fused
from megarc.attention.attention_call import Inputs
from megarc.attention.autograd_operator import unit_stride
from megarc.attention.mask import Mask

NAME = "flash4"
FEWER_ROWS = True  # by our own kernel


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    if not installed():
        return "FlashAttention 4 is not installed (pip install --pre flash-attn-4)"
    return cuda_requirements.refuse(device, dtype, head_dim, capability=(9, 0), largest=128, multiple=8)


def installed() -> bool:
    """Whether the package is here; looks without importing it."""
    return importlib.util.find_spec("flash_attn") is not None and bool(
        importlib.util.find_spec("flash_attn.cute")
    )


def attend(call: Inputs, mask: Mask) -> Tensor:
    """Attention of ``q [B, H, n, d]`` over ``k``, ``v`` ``[B, Hkv, n, d]``."""
    if not mask.uniform:
        return triton_fused.attend(call, mask)
    # [batch, heads, rows, head_dim] -> [batch, rows, heads, head_dim], as the package takes them
    q, k, v = (unit_stride(tensor).transpose(1, 2) for tensor in (call.q, call.k, call.v))
    head, rows = mask.recent, q.shape[1]
    parts = []
    call_package = torch.compiler.disable(_call)  # not as a decorator, see compiler_on_demand.py
    if head > 0:
        parts.append(call_package(q[:, :head], k[:, :head], v[:, :head], False, call.scale))
    if head < rows:
        parts.append(call_package(q[:, head:], k, v, True, call.scale))
    return torch.cat(parts, dim=1).transpose(1, 2)


def _call(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
    from flash_attn.cute import flash_attn_func

    found = flash_attn_func(q, k, v, softmax_scale=scale, causal=causal)
    out: Tensor = found[0] if isinstance(found, tuple) else found
    return out
