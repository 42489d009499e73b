"""Matrix products of a block in fp8, with a scale a row: a switch for Hopper and later.

Forward: activations and weights in e4m3, each row by its own largest value.
Backward: gradients in e5m2. Sums in float32, results in the type that came in;
masters, moments and everything else stay as they are (Micikevicius et al. 2022,
2209.05433). Both operands of each product are scaled along what is summed over.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` [.., inputs] times ``weight`` [outputs, inputs] transposed, in fp8."""
    return _Linear.apply(x, weight)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        rows = product(x.flatten(0, -2), weight, FORWARD, FORWARD)
        return rows.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        grad_x = product(rows, weight.t(), BACKWARD, FORWARD).view(x.shape)
        grad_weight = product(rows.t(), x.flatten(0, -2).t(), BACKWARD, FORWARD)
        return grad_x, grad_weight


def product(a: Tensor, b: Tensor, a_type: torch.dtype, b_type: torch.dtype) -> Tensor:
    """``a`` [m, k] times ``b`` [n, k] transposed: [m, n] in a's type, k by 16s filled up with zeros."""
    short = -a.shape[1] % 16
    if short:
        a, b = (torch.nn.functional.pad(one, (0, short)) for one in (a, b))
    a8, a_scale = quantised(a, a_type)
    b8, b_scale = quantised(b, b_type)
    if a.device.type in ("cpu", "meta"):  # emulated: the same rounding, products in float32
        return ((a8.float() * a_scale) @ (b8.float() * b_scale).t()).to(a.dtype)
    out = torch._scaled_mm(a8, b8.t(), scale_a=a_scale, scale_b=b_scale.t(), out_dtype=torch.bfloat16)
    return out.to(a.dtype)


def quantised(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``x`` [m, k] in fp8 and the scales [m, 1], float32, that undo it: ``x = fp8 * scale``."""
    largest = x.abs().amax(dim=1, keepdim=True).float().clamp_min(1e-12)
    scale = largest / torch.finfo(dtype).max
    return (x.float() / scale).to(dtype).contiguous(), scale
