"""Marginals of the chain as one operator, for compiled blocks.

The chain's steps are loops over the rows of a block: as a graph they are hundreds of small kernels, which take minutes
to compile. So a compiled block calls this operator, inside which everything runs eagerly. It keeps its inputs alone;
the backward pass runs the chain again and differentiates it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from megarc.attention.compiler_on_demand import import_compiler_on_demand
from megarc.model.mixers.directions import Documents
from megarc.model.mixers.marginals import marginals

import_compiler_on_demand()

_Key = torch._C.DispatchKey


def compiled_marginals(
    potentials: Tensor, transition: Tensor, mixed: Tensor | None, where: int | Documents
) -> Tensor:
    """As ``marginals`` of rows that nothing precedes, without the distribution behind the last row."""
    if isinstance(where, Documents):
        return _run(potentials, transition, mixed, 0, *where)
    return _run(potentials, transition, mixed, where, None, None, None)


@torch.library.custom_op("megarc::chain_marginals", mutates_args=())
def _run(
    potentials: Tensor,
    transition: Tensor,
    mixed: Tensor | None,
    recent: int,
    first: Tensor | None,
    inside: Tensor | None,
    last: Tensor | None,
) -> Tensor:
    return marginals(potentials, transition, mixed, _where(recent, first, inside, last))[0].contiguous()


@_run.register_fake
def _(potentials: Tensor, *rest: Any) -> Tensor:
    return potentials.new_empty(potentials.shape)


# torch reads an operator's schema from the function's hints, so a missing gradient is an empty tensor.
@torch.library.custom_op("megarc::chain_marginals_backward", mutates_args=())
def _run_backward(
    gradient: Tensor,
    potentials: Tensor,
    transition: Tensor,
    mixed: Tensor | None,
    recent: int,
    first: Tensor | None,
    inside: Tensor | None,
    last: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    given = [one.detach().requires_grad_() for one in (potentials, transition, mixed) if one is not None]
    # Inside an operator autograd is switched off, whatever the gradient mode.
    with (
        torch._C._SetExcludeDispatchKeyGuard(_Key.AutogradFunctionality, False),
        torch._C._SetExcludeDispatchKeyGuard(_Key.ADInplaceOrView, False),
        torch.enable_grad(),
    ):
        several = given[2] if mixed is not None else None
        found, _ = marginals(given[0], given[1], several, _where(recent, first, inside, last))
        gradients = torch.autograd.grad(found, given, gradient)
    missing = [gradient.new_empty(0)] if mixed is None else []
    of_potentials, of_transition, of_mixed = (one.contiguous() for one in (*gradients, *missing))
    return of_potentials, of_transition, of_mixed


@_run_backward.register_fake
def _(
    gradient: Tensor, potentials: Tensor, transition: Tensor, mixed: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (0,) if mixed is None else mixed.shape
    return (
        potentials.new_empty(potentials.shape),
        transition.new_empty(transition.shape),
        gradient.new_empty(shape),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.recent, first, inside, last = inputs
    ctx.save_for_backward(*tensors, first, inside, last)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, first, inside, last = ctx.saved_tensors
    found = _run_backward(gradient, *tensors, ctx.recent, first, inside, last)
    return (found[0], found[1], None if tensors[2] is None else found[2], None, None, None, None)


_run.register_autograd(_differentiate, setup_context=_keep)


def _where(recent: int, first: Tensor | None, inside: Tensor | None, last: Tensor | None) -> int | Documents:
    if first is None or inside is None or last is None:
        return recent
    return Documents(first, inside, last)
