"""A pair of plain functions as one differentiable operator.

``torch.compile`` sees one node (so no graph breaks, whatever happens inside),
recomputation of activations calls it again, autograd keeps ``q, k, v, out, lse``.
Both functions get tensors whose last stride is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from megarc.attention.attention_call import Grads, Inputs, Outputs
from megarc.attention.compiler_on_demand import import_compiler_on_demand
from megarc.attention.mask import Mask

Attend = Callable[[Inputs, Mask], Tensor]
Forward = Callable[[Inputs, Mask], tuple[Tensor, Tensor]]
"""Output ``[B, H, n, d]``, natural log-sum-exp ``[B, H, n]`` (float32 at least)."""
Backward = Callable[[Inputs, Mask, Outputs], Grads]


def operator(name: str, forward: Forward, backward: Backward) -> Attend:
    """Registers ``megarc::NAME`` and ``megarc::NAME_backward``; returns the differentiable call."""
    import_compiler_on_demand()

    # torch reads an operator's schema from the function's hints, so the arguments stand here one by one.
    @torch.library.custom_op(f"megarc::{name}", mutates_args=())
    def run(
        q: Tensor, k: Tensor, v: Tensor, scale: float, recent: int, begin: Tensor | None, end: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        call = Inputs(unit_stride(q), unit_stride(k), unit_stride(v), scale)
        out, lse = forward(call, Mask(recent, begin, end))
        return _laid_out_as(q, out), lse.contiguous()

    @run.register_fake
    def _(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=lse_dtype(q))

    @torch.library.custom_op(f"megarc::{name}_backward", mutates_args=())
    def run_backward(
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        scale: float,
        recent: int,
        begin: Tensor | None,
        end: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        call = Inputs(unit_stride(q), unit_stride(k), unit_stride(v), scale)
        outputs = Outputs(unit_stride(grad), unit_stride(out), lse)
        grads = backward(call, Mask(recent, begin, end), outputs)
        return _laid_out_as(q, grads[0]), _laid_out_as(k, grads[1]), _laid_out_as(v, grads[2])

    @run_backward.register_fake
    def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, ctx.scale, ctx.recent, begin, end = inputs
        ctx.save_for_backward(q, k, v, *output, begin, end)
        ctx.set_materialize_grads(False)

    def differentiate(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 7
        q, k, v, out, lse, begin, end = ctx.saved_tensors
        grads = run_backward(grad, q, k, v, out, lse, ctx.scale, ctx.recent, begin, end)
        return (*grads, None, None, None, None)

    run.register_autograd(differentiate, setup_context=keep)

    def attend(call: Inputs, mask: Mask) -> Tensor:
        out: Tensor = run(call.q, call.k, call.v, call.scale, mask.recent, mask.begin, mask.end)[0]
        return out

    return attend


def lse_dtype(q: Tensor) -> torch.dtype:
    """What a log-sum-exp is kept in."""
    return torch.promote_types(q.dtype, torch.float32)


def unit_stride(tensor: Tensor) -> Tensor:
    """``tensor`` with a last stride of 1, which flash attentions take for granted, unasked."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _laid_out_as(model: Tensor, tensor: Tensor) -> Tensor:
    """``tensor`` with the strides that the fakes promise: those of ``empty_like(model)``."""
    if tensor.stride() == torch.empty_like(model, device="meta").stride():
        return tensor
    return torch.empty_like(model).copy_(tensor)
