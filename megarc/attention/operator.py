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

from megarc.attention.mask import Mask

Attend = Callable[[Tensor, Tensor, Tensor, Mask, float], Tensor]
Forward = Callable[[Tensor, Tensor, Tensor, Mask, float], tuple[Tensor, Tensor]]
"""``(q, k, v, mask, scale)`` -> output ``[B, H, n, d]``, natural log-sum-exp ``[B, H, n]`` (float32 at least)."""
Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""``(grad, q, k, v, out, lse, mask, scale)`` -> gradients of q, k, v."""


def operator(name: str, forward: Forward, backward: Backward) -> Attend:
    """Registers ``megarc::NAME`` and ``megarc::NAME_backward``; returns the differentiable call."""

    @torch.library.custom_op(f"megarc::{name}", mutates_args=())
    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        recent: int,
        recents: Tensor | None,
        documents: Tensor | None,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        mask = Mask(recent, recents, documents)
        out, lse = forward(unit_stride(q), unit_stride(k), unit_stride(v), mask, scale)
        return _laid_out_as(q, out), lse.contiguous()

    @run.register_fake
    def _(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        recent: int,
        recents: Tensor | None,
        documents: Tensor | None,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=lse_dtype(q))

    @torch.library.custom_op(f"megarc::{name}_backward", mutates_args=())
    def run_backward(
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        recent: int,
        recents: Tensor | None,
        documents: Tensor | None,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        tensors = [unit_stride(tensor) for tensor in (grad, q, k, v, out)]
        grads = backward(*tensors, lse, Mask(recent, recents, documents), scale)
        return _laid_out_as(q, grads[0]), _laid_out_as(k, grads[1]), _laid_out_as(v, grads[2])

    @run_backward.register_fake
    def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, ctx.recent, recents, documents, ctx.scale = inputs
        ctx.save_for_backward(q, k, v, *output, recents, documents)
        ctx.set_materialize_grads(False)

    def differentiate(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 7
        q, k, v, out, lse, recents, documents = ctx.saved_tensors
        grads = run_backward(grad, q, k, v, out, lse, ctx.recent, recents, documents, ctx.scale)
        return (*grads, None, None, None, None)

    run.register_autograd(differentiate, setup_context=keep)

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float) -> Tensor:
        out: Tensor = run(q, k, v, mask.recent, mask.recents, mask.documents, scale)[0]
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
