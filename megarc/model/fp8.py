"""Matrix products of a block in fp8, with a scale a row or a tensor: a switch for Ada, Hopper and later.

Forward: activations and weights in e4m3, each row (or the whole) by its own largest value, found anew at each
product. Backward: gradients in e5m2. Sums in float32, results in the type that came in; masters, moments and
everything else stay as they are (Micikevicius et al. 2022, 2209.05433). With a scale a row, both operands of each
product are scaled along what is summed over. One scale a tensor is coarser where a few values are very large, and
needs less work beside the product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

Scales = Literal["row", "tensor"]
FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2


def no_fp8(device: torch.device) -> str | None:
    """Why fp8 products cannot be had on ``device``, or None."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) < (8, 9):
            name = torch.cuda.get_device_name(device)
            return f"{name} is sm_{major}{minor}; fp8 products need sm_89 (Ada), sm_90 (Hopper) or later"
        return None
    return "a CPU has no fp8 products"


def linear_with(scales: Scales) -> Callable[[Tensor, Tensor], Tensor]:
    """``(x [.., inputs], weight [outputs, inputs])`` -> x times weight transposed, in fp8 with these scales."""

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        return _Linear.apply(x, weight, scales)

    return linear


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scales: Scales) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.scales = scales
        rows = product(x.flatten(0, -2), weight, FORWARD, FORWARD, scales)
        return rows.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        grad_x = product(rows, weight.t(), BACKWARD, FORWARD, ctx.scales).view(x.shape)
        grad_weight = product(rows.t(), x.flatten(0, -2).t(), BACKWARD, FORWARD, ctx.scales)
        return grad_x, grad_weight, None


def product(a: Tensor, b: Tensor, a_type: torch.dtype, b_type: torch.dtype, scales: Scales = "row") -> Tensor:
    """``a`` [m, k] times ``b`` [n, k] transposed: [m, n] in a's type, k by 16s filled up with zeros."""
    short = -a.shape[1] % 16
    if short:
        a, b = (torch.nn.functional.pad(one, (0, short)) for one in (a, b))
    a8, a_scale = quantised(a, a_type, scales)
    b8, b_scale = quantised(b, b_type, scales)
    if a.device.type in ("cpu", "meta"):  # emulated: the same rounding, products in float32
        return ((a8.float() * a_scale) @ (b8.float() * b_scale).t()).to(a.dtype)
    if scales == "tensor":
        a_scale, b_scale = a_scale.reshape(()), b_scale.reshape(())
    out = torch._scaled_mm(a8, b8.t(), scale_a=a_scale, scale_b=b_scale.t(), out_dtype=torch.bfloat16)
    return out.to(a.dtype)


def quantised(x: Tensor, dtype: torch.dtype, scales: Scales = "row") -> tuple[Tensor, Tensor]:
    """``x`` [m, k] in fp8, and float32 scales that undo it: ``x = fp8 * scale``, [m, 1] or, of a tensor, [1, 1]."""
    largest = x.abs().amax(dim=1 if scales == "row" else (0, 1), keepdim=True).float().clamp_min(1e-12)
    scale = largest / torch.finfo(dtype).max
    return (x.float() / scale).to(dtype).contiguous(), scale
