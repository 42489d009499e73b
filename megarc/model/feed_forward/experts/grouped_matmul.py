"""Rows sorted by expert, times each expert's own matrix.

On a CPU this is a loop of matrix products, which is also the reference. On a GPU torch's grouped product runs all of
them in one kernel, where it takes the shapes (bf16, widths that are multiples of 8). torch 2.13's own grouped product
on a CPU gives the same bits as the loop, but refuses float64 and some widths.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from megarc.attention.compiler_on_demand import import_compiler_on_demand

import_compiler_on_demand()

_ALIGNED = 16  # bytes: strides that torch's grouped product takes


def grouped_matmul(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """``x`` [rows, inputs], the first ``counts[0]`` rows of expert 0 and so on -> [rows, outputs].

    Args:
        weight: [experts, outputs, inputs]; a row is multiplied by its expert's matrix transposed.
        counts: rows of each expert, [experts] int64, of sum ``rows``; some may be 0.
    """
    return _multiply(x, weight, counts)


@torch.library.custom_op("megarc::grouped_matmul", mutates_args=())
def _multiply(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    if _in_one_kernel(x, weight):
        return F.grouped_mm(x, weight.mT, offs=_ends(counts))
    out = x.new_empty(len(x), weight.shape[1])
    for matrix, (start, stop) in zip(weight, _ranges(counts), strict=True):
        torch.mm(x[start:stop], matrix.t(), out=out[start:stop])
    return out


@torch.library.custom_op("megarc::grouped_outer", mutates_args=())
def _outer(gradient: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    """Of each expert, ``gradient`` [its rows, outputs] transposed times ``x``: [experts, outputs, inputs]."""
    if _in_one_kernel(x, gradient):
        return F.grouped_mm(gradient.t(), x, offs=_ends(counts))
    out = x.new_empty(len(counts), gradient.shape[1], x.shape[1])
    for matrix, (start, stop) in zip(out, _ranges(counts), strict=True):
        torch.mm(gradient[start:stop].t(), x[start:stop], out=matrix)
    return out


@_multiply.register_fake
def _(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@_outer.register_fake
def _(gradient: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(counts.shape[0], gradient.shape[1], x.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight, counts = ctx.saved_tensors
    gradient = gradient.contiguous()
    by_x = _multiply(gradient, weight.mT, counts) if ctx.needs_input_grad[0] else None
    by_weight = _outer(gradient, x, counts) if ctx.needs_input_grad[1] else None
    return by_x, by_weight, None


_multiply.register_autograd(_differentiate, setup_context=_keep)


def _ranges(counts: Tensor) -> list[tuple[int, int]]:
    """First row and end of each expert's rows, on the host."""
    ends = counts.cumsum(0).tolist()
    return list(zip([0, *ends], ends, strict=False))


def _ends(counts: Tensor) -> Tensor:
    return counts.cumsum(0).to(torch.int32)


def _in_one_kernel(x: Tensor, other: Tensor) -> bool:
    """Whether torch's grouped product takes them."""
    widths = (x.shape[-1], other.shape[-1], other.shape[-2] if other.dim() == 3 else x.shape[-1])
    return (
        x.is_cuda
        and x.dtype == torch.bfloat16
        and all(width * x.itemsize % _ALIGNED == 0 for width in widths)
    )
