"""The column split: [R | C] attention from two calls that any flash attention can make.

    all n rows  x  the r keys of R     no mask
    the c rows of C  x  the c keys of C    causal, square

A row of R is finished by the first; a row of C merges both by the logarithm of
its sum of exponentials. Together they compute exactly the allowed pairs:
n*r + c*(c+1)/2 = r*r + c*r + c*(c+1)/2. There may also be fewer rows than keys: then the rows
are the last of the window, those that see the last of the keys.

The backward pass of flash attention rebuilds a part's probabilities from the
log-sum-exp, and needs the output for the row sums of grad * out. Handed the
*merged* output and log-sum-exp, each part's backward gives its share of the true
gradient; the shares of the queries add up, those of the keys stand side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from megarc.attention.attention_call import Grads, Inputs, Outputs

Merge = Callable[[Tensor, Tensor, Tensor, Tensor], None]


class Flash(Protocol):
    """One flash attention.

    ``causal`` lets row i of the last m see up to itself: the column split asks for it with
    m = t only, the row split (``row_split.py``) with m < t, aligned to the bottom right.
    """

    def forward(self, call: Inputs, causal: bool) -> tuple[Tensor, Tensor]:
        """``out [B, H, m, d]`` and its log-sum-exp ``[B, H, m]``, natural, of scaled scores."""

    def backward(self, call: Inputs, outputs: Outputs, causal: bool) -> Grads:
        """Gradients of q, k, v, with ``outputs.out`` and ``outputs.lse`` taken as given."""


def forward(flash: Flash, call: Inputs, recent: int, merge: Merge | None = None) -> tuple[Tensor, Tensor]:
    """Output ``[B, H, n, d]`` and log-sum-exp ``[B, H, n]``; ``merge`` may replace ``merge_``."""
    if recent == 0:
        return flash.forward(call, True)
    out, lse = flash.forward(call.part(keys=slice(recent)), False)
    tail, keys = _causal_part(call, recent)
    if tail.start < call.rows:
        out_c, lse_c = flash.forward(call.part(tail, keys), True)
        (merge or merge_)(out[:, :, tail], lse[:, :, tail], out_c, lse_c)
    return out, lse


def backward(flash: Flash, call: Inputs, outputs: Outputs, recent: int) -> Grads:
    """Gradients of q, k and v, shaped as they are."""
    if recent == 0:
        return flash.backward(call, outputs, True)
    grad_q, grad_k, grad_v = flash.backward(call.part(keys=slice(recent)), outputs, False)
    tail, keys = _causal_part(call, recent)
    if tail.start < call.rows:
        grad_q_c, grad_k_c, grad_v_c = flash.backward(call.part(tail, keys), outputs.part(tail), True)
        grad_q[:, :, tail] += grad_q_c
        grad_k, grad_v = torch.cat([grad_k, grad_k_c], dim=2), torch.cat([grad_v, grad_v_c], dim=2)
    return grad_q, grad_k, grad_v


def _causal_part(call: Inputs, recent: int) -> tuple[slice, slice]:
    """The rows and the keys of the causal square: as many rows as there are keys behind ``recent``."""
    return slice(call.rows - (call.k.shape[2] - recent), None), slice(recent, None)


def merge_(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> None:
    """Makes ``out``, ``lse`` of one set of keys those of its union with another, disjoint one.

    A set without any key has a log-sum-exp of -inf and weighs nothing; where
    both are empty the output is 0.
    """
    both = torch.logaddexp(lse, other_lse)
    empty = both == -torch.inf
    weight = torch.exp(lse - both).masked_fill(empty, 0.0).unsqueeze(-1)
    other_weight = torch.exp(other_lse - both).masked_fill(empty, 0.0).unsqueeze(-1)
    out.copy_(out * weight + other_out * other_weight)
    lse.copy_(both)
