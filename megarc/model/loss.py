"""Head and loss in one: hidden rows to cross-entropies, a chunk of rows at a time.

The logits of a chunk exist, those of all rows never do: neither forward nor
backward, nor on any tensor rank the whole vocabulary. Since the loss is a sum
over rows, whatever stands above it multiplies every gradient alike: they are
made while the chunk's logits are there, and the backward pass only scales them.
No product is computed twice.

torch's ``linear_cross_entropy`` (2.13) has the same idea, but gives no log_z (so no
z-loss) and knows no split vocabulary; Liger's runs on GPUs only and weighs no rows
(its issue 338).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from megarc.model.compiling import Compiled
from megarc.model.config import ExecutionConfig, ModelConfig
from megarc.parallel import TensorParallel

_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Logits that exist at once, about: a CPU likes them in its cache, a GPU wants many rows (docs/speed.md)."""
_FEWEST = 128  # rows, however large the vocabulary: fewer make slow matrix products


class Loss(NamedTuple):
    """Of a micro-batch.

    Attributes:
        objective: ``sum(w * (nll + z_loss * log_z^2))``, what is differentiated: a scalar, to be divided
            by W, the weights of the whole batch. The second term is PaLM's z-loss (2204.02311, section 5).
        nll: of the rows [batch, s] or [k], in nats, without a gradient, float32 at least.
        log_z: alike.
        right: alike, whether the likeliest token is the target; None where gradients are made.
    """

    objective: Tensor
    nll: Tensor
    log_z: Tensor
    right: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """How the head's rows become losses.

    Attributes:
        tokens: the vocabulary; ids from there on are padding and take no probability.
        tensor: over whose ranks the ids are split.
        chunk: rows whose logits exist at once; None: as many as make 4M logits on a CPU, 64M on
            a GPU, 128 at least.
        compile: whether what stands between the two matrix products is compiled.
        cap: of logits, softly; None: none.
    """

    tokens: int
    tensor: TensorParallel
    chunk: int | None = None
    compile: bool = False
    cap: float | None = None

    @classmethod
    def of(cls, config: ModelConfig, execution: ExecutionConfig, tensor: TensorParallel) -> Head:
        """The head of a model."""
        return cls(config.tokens, tensor, execution.head_rows, execution.compile, config.logit_cap)

    def rows(self, ids: int, device: str = "cpu") -> int:
        """Rows of a chunk of a head with ``ids`` ids."""
        return self.chunk or max(_FEWEST, _CHUNK.get(device, _CHUNK["cuda"]) // ids)


def head_loss(
    head: Head,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    z_loss: float = 0.0,
) -> Loss:
    """Losses of ``hidden`` [.., width] under ``weight`` [this tensor rank's ids, width].

    Args:
        targets: token ids, [batch, s] or any shape of rows.
        weights: alike; None: all 1.
    """
    shape, rows = targets.shape, hidden.flatten(0, -2)
    flat = torch.ones(len(rows), device=rows.device) if weights is None else weights.flatten()
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    objective, nll, log_z, right = _HeadLoss.apply(
        rows, weight, targets.flatten().long(), flat, z_loss, head, wanted
    )
    return Loss(objective, nll.view(shape), log_z.view(shape), None if wanted else right.view(shape))


def capped(logits: Tensor, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """``cap * tanh(logits / cap)`` and its slope there; with no cap the logits, and no slope."""
    if cap is None:
        return logits, None
    share = torch.tanh(logits / cap)
    return cap * share, 1 - share.square()


def weighted_sum(nll: Tensor, weights: Tensor | None) -> Tensor:
    """``sum(w * nll)`` of [batch, s] each."""
    return nll.sum() if weights is None else (nll * weights).sum()


def scored(loss: Loss, weights: Tensor | None) -> Tensor:
    """``sum(w * nll)`` and ``sum(w * right)``, of a loss without gradients: [2]."""
    assert loss.right is not None
    return torch.stack(
        (weighted_sum(loss.nll, weights), weighted_sum(loss.right.to(loss.nll.dtype), weights))
    )


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # [rows, width]
        weight: Tensor,  # [ids, width]
        targets: Tensor,
        weights: Tensor,
        z_loss: float,
        head: Head,
        wanted: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weights = weights.to(wide)
        nll, log_z = torch.empty_like(weights), torch.empty_like(weights)
        right = None if wanted else torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        first = head.tensor.rank * len(weight)
        known = min(len(weight), max(0, head.tokens - first))
        grad_hidden = torch.empty_like(hidden) if wanted else None
        # Summed over chunks in float32: one of many small terms would be lost in bf16.
        grad_weight = torch.zeros_like(weight, dtype=wide) if wanted else None
        step = head.rows(len(weight), weight.device.type)
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            x = hidden[part]
            logits, slope = capped(F.linear(x, weight), head.cap)
            found = _chunk(head, logits, targets[part] - first, weights[part], z_loss, known, wanted)
            nll[part], log_z[part], gradient = found
            del found
            if right is not None:
                right[part] = _right(head, logits, targets[part] - first)
            if gradient is not None and grad_hidden is not None and grad_weight is not None:
                if slope is not None:
                    gradient.mul_(slope)
                torch.mm(gradient, weight, out=grad_hidden[part])
                _add_product(grad_weight, gradient.t(), x)
            del gradient
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = weight.dtype
        ctx.mark_non_differentiable(nll, log_z)
        return (weights * (nll + z_loss * log_z.square())).sum(), nll, log_z, right

    @staticmethod
    def backward(ctx: Any, scale: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        # In place: a second backward pass through one loss is an error, as torch says it.
        return grad_hidden.mul_(scale), grad_weight.mul_(scale).to(ctx.dtype), None, None, None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``; ``total`` may be wider than they are."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _chunk(
    head: Head, logits: Tensor, targets: Tensor, weights: Tensor, z_loss: float, known: int, wanted: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """nll and log_z [rows], and the gradient of the objective by ``logits`` [rows, ids]."""
    shares, log_z, hit = _run(head, _sums)(logits, targets, known)
    local = log_z
    if head.tensor.size > 1:
        peak = head.tensor.maximum(log_z)
        total, hit = head.tensor.sum(torch.stack(((log_z - peak).exp(), hit)))
        log_z = peak + total.log()
    nll = log_z - hit
    if not wanted:
        return nll, log_z, None
    scale = weights * (1 + 2 * z_loss * log_z)
    own = scale * (-nll).exp() - weights
    return (
        nll,
        log_z,
        _run(head, _gradient)(shares, scale * (local - log_z).exp(), own, targets, logits.dtype),
    )


def _right(head: Head, logits: Tensor, targets: Tensor) -> Tensor:
    """Whether ``targets`` have the largest of ``logits`` [rows, ids], padding aside, on all tensor ranks."""
    peak, here = _first_peak(logits, targets)
    if head.tensor.size == 1:
        return here
    here &= peak == head.tensor.maximum(peak.clone())
    return head.tensor.sum(here.to(peak.dtype)) > 0


def _first_peak(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row, and whether it stands first at the row's target."""
    if logits.device.type != "cpu":
        peak, best = logits.max(-1)
        return peak, best == targets
    # On a CPU the place of the largest takes nine times as long as its value: few rows need it, for ties.
    peak = logits.amax(-1)
    elsewhere, place = _place(targets, logits.shape[1])
    here = (logits.gather(1, place[:, None])[:, 0] == peak) & ~elsewhere
    some = here.nonzero()[:, 0]
    here[some] = logits[some].argmax(-1) == targets[some]
    return peak, here


def _sums(logits: Tensor, targets: Tensor, known: int) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax of ``logits`` [rows, ids], log of the sum of exponentials, the targets' logits (elsewhere: 0).

    All in float32 at least. One kernel makes the softmax and tells no sum; that
    stands in the largest share, ``exp(peak) / sum``.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    logits[:, known:].fill_(torch.finfo(logits.dtype).min)  # padding: no probability
    elsewhere, place = _place(targets, logits.shape[1])
    hit = logits.gather(1, place[:, None])[:, 0].to(wide).masked_fill(elsewhere, 0.0)
    shares = logits.softmax(-1, dtype=wide)
    return shares, logits.amax(-1).to(wide) - shares.amax(-1).log(), hit


def _gradient(shares: Tensor, scale: Tensor, own: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """``scale * shares`` [rows, ids], with ``own`` [rows] at the targets.

    The target's own is made before it is rounded: near a probability of 1 nothing else is left of it.
    """
    gradient = shares.mul_(scale[:, None]).to(dtype)
    elsewhere, place = _place(targets, shares.shape[1])
    own = torch.where(elsewhere, gradient.gather(1, place[:, None])[:, 0], own.to(dtype))
    return gradient.scatter_(1, place[:, None], own[:, None])


def _place(targets: Tensor, ids: int) -> tuple[Tensor, Tensor]:
    """Which of ``targets`` [rows] are no ids of this rank, and where the others stand (those: 0)."""
    elsewhere = (targets < 0) | (targets >= ids)
    return elsewhere, targets.masked_fill(elsewhere, 0)


def _run(head: Head, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, compiled where that is asked for: one pass over the logits instead of several."""
    return _compiled(function) if head.compile else function


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return Compiled(function, "the loss")
