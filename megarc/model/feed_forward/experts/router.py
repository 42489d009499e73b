"""Which experts a row uses, with which weights; and what keeps experts equally busy.

Scores, weights and the sums over rows are float32 at least, whatever the model's precision. Experts are chosen by a
stable sort: of equal scores the expert with the lower number goes first, on every device and layout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megarc.model.config import ModelConfig
from megarc.model.parameter_record import matrix, record_of, state_vector
from megarc.parallel import TensorParallel, all_reduce_sum


class Routes(NamedTuple):
    """Of ``rows`` rows: their experts [rows, k], the weights of these [rows, k], and rows of each expert [experts]."""

    chosen: Tensor
    weights: Tensor
    counts: Tensor


@dataclass
class Tally:
    """What a layer's backward passes counted in a step; the engine empties it and reads it.

    A backward pass runs once for each micro-batch, however often activations are computed again. So what is counted
    there is counted once, and passes without gradients (held-out losses, generation) do not count.

    Attributes:
        share: 1 / the samples of this rank's step; what penalties are means over.
        sums: [experts + OTHERS] float64: rows of each expert; sums over samples of the entropy, the balance loss and
            the z-loss; rows that the router gave away, each as often as it has experts; samples.
    """

    OTHERS: ClassVar[int] = 5

    share: float = 0.0
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))

    def add(self, counted: Tensor) -> None:
        """Adds one micro-batch's sums."""
        self.sums = counted if not self.sums.numel() else self.sums + counted


class Router(nn.Module):
    """``x`` -> experts. Its matrix [experts, hidden] is held whole by every tensor rank.

    ``balance`` [experts] (None where nothing is balanced so) is state, not a parameter: it is added to scores where
    experts are chosen, never to their weights, and no gradient reaches it (Wang et al. 2024, 2408.15664). It stays
    float32. ``tally`` is where backward passes count; without one there are no penalties either.
    """

    balance: Tensor | None

    def __init__(self, config: ModelConfig, tensor: TensorParallel) -> None:
        super().__init__()
        assert config.experts is not None
        self.keys, self.tensor = config.experts, tensor
        self.weight = matrix(self.keys.count, config.hidden, "router", tensor)
        biased = self.keys.balance == "bias"
        self.register_buffer("balance", state_vector(self.keys.count) if biased else None)
        self.tally: Tally | None = None

    def forward(self, x: Tensor) -> Routes:
        """``x`` [batch, rows, hidden], all rows of every window, or those of this context rank."""
        wide = torch.promote_types(x.dtype, torch.float32)
        logits = F.linear(x.to(wide), self.tensor.shared(self.weight).to(wide))
        scores = logits.softmax(-1) if self.keys.scores == "softmax" else logits.sigmoid()
        wanted = scores.detach()
        if self.balance is not None:
            wanted = wanted + self.balance
        chosen = wanted.sort(dim=-1, descending=True, stable=True).indices[..., : self.keys.active]
        weights = scores.gather(-1, chosen)
        if self.keys.normalised:
            weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(wide).tiny)
        if self.keys.scale != 1.0:
            weights = weights * self.keys.scale
        by_window = _counts(chosen, self.keys.count)
        if self.tally is not None and weights.requires_grad:
            weights = self._watched(weights, logits, scores, by_window)
        return Routes(chosen.flatten(0, 1), weights.flatten(0, 1), by_window.sum(0))

    def _watched(self, weights: Tensor, logits: Tensor, scores: Tensor, by_window: Tensor) -> Tensor:
        """``weights``, behind which penalties get their gradients and rows are counted."""
        assert self.tally is not None
        shares = scores if self.keys.scores == "softmax" else scores / scores.sum(-1, keepdim=True)
        entropy = -(shares.detach() * shares.detach().clamp_min(1e-30).log()).sum(-1).mean(-1)
        # Context ranks have equally many rows of a window: each of them makes its part of the window's means.
        parts = self.tensor.context.size
        of_all = all_reduce_sum(by_window.clone(), self.tensor.context)
        balance = balance_loss(shares, of_all, self.keys.active, parts)
        z_loss = logits.logsumexp(-1).square().mean(-1)
        sums = torch.stack((entropy.sum(), balance.detach().sum(), z_loss.detach().sum())) / parts
        asked = sums.new_tensor([logits[..., 0].numel() * self.keys.active, len(by_window) / parts])
        counted = torch.cat((by_window.sum(0), sums, asked)).double()
        penalty = weights.new_zeros(())
        if self.keys.balance == "loss":
            penalty = penalty + self.keys.loss_weight * balance.sum()
        if self.keys.router_z_loss:
            penalty = penalty + self.keys.router_z_loss * z_loss.sum()
        # Each tensor rank makes the whole penalty, and the gradients of all of them are summed.
        return _Watched.apply(weights, penalty, counted, self.tally, self.tensor.size)

    def _apply(self, function: Any, recurse: bool = True) -> Router:
        """As torch has it, but the balance keeps its type and its record."""
        before = self.balance
        super()._apply(function, recurse)
        if before is not None and self.balance is not None:
            after = before.to(self.balance.device)
            after.record = record_of(before)
            self.balance = after
        return self


def start_tallies(model: nn.Module) -> None:
    """Lets the routers of ``model`` count, and add their penalties, where no engine does: in passes without values."""
    for module in model.modules():
        if isinstance(module, Router):
            module.tally = Tally(share=1.0)


def balance_loss(shares: Tensor, by_window: Tensor, active: int, parts: int = 1) -> Tensor:
    """E sum_i f_i p_i of each window, [batch] (Fedus et al. 2021, 2101.03961, equations 4 to 6): 1 where all is even.

    Args:
        shares: [batch, rows, experts], of each row 1 together.
        by_window: assignments of each window to each expert, [batch, experts].
        parts: ranks that each have so many rows of a window; the mean of their results is the window's loss.
    """
    rows, experts = shares.shape[1:]
    used = by_window.to(shares.dtype) / (rows * parts * active)
    return experts * (used * shares.mean(1)).sum(-1)


def _counts(chosen: Tensor, experts: int) -> Tensor:
    """``chosen`` [batch, rows, k] -> assignments to each expert of each window, [batch, experts] int64."""
    flat = chosen.flatten(1)
    return torch.zeros(len(flat), experts, dtype=torch.long, device=flat.device).scatter_add_(
        1, flat, torch.ones_like(flat)
    )


class _Watched(torch.autograd.Function):
    """Passes weights on; backward, gives the penalty its gradient and counts (as Megatron's MoEAuxLossAutoScaler)."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, penalty: Tensor, counted: Tensor, tally: Tally, ranks: int
    ) -> Tensor:
        ctx.counted, ctx.tally, ctx.ranks, ctx.dtype = counted, tally, ranks, penalty.dtype
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        ctx.tally.add(ctx.counted)
        share = torch.full((), ctx.tally.share / ctx.ranks, dtype=ctx.dtype, device=gradient.device)
        return gradient, share, None, None, None
