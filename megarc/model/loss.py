"""Cross-entropy row by row, and the weighted sum that a step minimises."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RowLoss(NamedTuple):
    """For each loss row: ``nll`` [batch, s] in nats, ``log_z`` [batch, s], float32 at least."""

    nll: Tensor
    log_z: Tensor


def row_loss(logits: Tensor, targets: Tensor) -> RowLoss:
    """``logits`` [batch, s, vocabulary] against ``targets`` [batch, s].

    bf16 logits are taken to float32 first: a sum over a vocabulary needs it.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_z = torch.logsumexp(logits, dim=-1)
    hit = logits.gather(-1, targets.long()[..., None])[..., 0]
    return RowLoss(log_z - hit, log_z)


def weighted_sum(loss: RowLoss, weights: Tensor | None, z_loss: float) -> Tensor:
    """``sum(w * (nll + z_loss * log_z^2))``: to be divided by W, the weights of the whole batch.

    The second term is PaLM's z-loss (2204.02311, section 5), which keeps log_z near 0.
    """
    row = loss.nll if z_loss == 0 else loss.nll + z_loss * loss.log_z.square()
    return (row if weights is None else row * weights).sum()
