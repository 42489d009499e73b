"""The column split on the cuDNN attention inside torch: cuDNN's speed without a further package.

Its causal mask is aligned to the top left only, which is all that the column
split asks for. cuDNN takes no part of a single key; those windows, and masks that
differ between samples, go to our own kernel (``triton_fused.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from megarc.attention import column_split, cuda_requirements, triton_fused
from megarc.attention.attention_call import Grads, Inputs, Outputs
from megarc.attention.autograd_operator import operator
from megarc.attention.mask import Mask

NAME = "split_cudnn"
FEWER_ROWS = True  # by our own kernel

_cudnn = torch.ops.aten._scaled_dot_product_cudnn_attention
_cudnn_backward = torch.ops.aten._scaled_dot_product_cudnn_attention_backward


def refuse(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this engine cannot serve, or None."""
    reason = cuda_requirements.refuse(device, dtype, head_dim, capability=(9, 0), largest=128, multiple=8)
    if reason is None and (torch.backends.cudnn.version() or 0) < 90000:
        return "it needs cuDNN 9"
    return reason


def attend(call: Inputs, mask: Mask) -> Tensor:
    """Attention of ``q [B, H, n, d]`` over ``k``, ``v`` ``[B, Hkv, n, d]``."""
    single = mask.recent == 1 or call.rows - mask.recent == 1
    run = _attend if mask.uniform and not single else triton_fused.attend
    return run(call, mask)


class CudnnFlash:
    """cuDNN's attention as the splits take it. Its log-sum-exp is natural, ``[B, H, m, 1]``."""

    def forward(self, call: Inputs, causal: bool) -> tuple[Tensor, Tensor]:
        out, lse, *_ = _cudnn(call.q, call.k, call.v, None, True, 0.0, causal, False, scale=call.scale)
        return out, lse.reshape(call.q.shape[:3])

    def backward(self, call: Inputs, outputs: Outputs, causal: bool) -> Grads:
        seed = torch.zeros((), dtype=torch.int64, device=call.q.device)  # of a dropout that there is not
        grads: Grads = _cudnn_backward(
            outputs.grad, call.q, call.k, call.v, outputs.out, outputs.lse.unsqueeze(-1).contiguous(), seed, seed,
            None, None, None, call.rows, call.k.shape[2], 0.0, causal, scale=call.scale,
        )  # fmt: skip
        return grads


def _forward(call: Inputs, mask: Mask) -> tuple[Tensor, Tensor]:
    return column_split.forward(CudnnFlash(), call, mask.recent, triton_fused.merge_)


def _backward(call: Inputs, mask: Mask, outputs: Outputs) -> Grads:
    return column_split.backward(CudnnFlash(), call, outputs, mask.recent)


_attend = operator("split_cudnn", _forward, _backward)
