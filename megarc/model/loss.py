"""Cross-entropy row by row, and the weighted sum that a step minimises."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from megarc.parallel import TensorParallel


class RowLoss(NamedTuple):
    """For each loss row: ``nll`` [batch, s] in nats, ``log_z`` [batch, s], float32 at least."""

    nll: Tensor
    log_z: Tensor


def row_loss(logits: Tensor, targets: Tensor, tensor: TensorParallel | None = None) -> RowLoss:
    """``logits`` [batch, s, this tensor rank's ids] against ``targets`` [batch, s].

    bf16 logits are taken to float32 first: a sum over a vocabulary needs it.
    No rank ever has a whole row of logits; sums go over the tensor group.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if tensor is None or tensor.size == 1:
        log_z = torch.logsumexp(logits, dim=-1)
        return RowLoss(log_z - logits.gather(-1, targets.long()[..., None])[..., 0], log_z)
    ids = logits.shape[-1]
    highest = tensor.maximum(logits.amax(-1))
    log_z = highest + tensor.sum((logits - highest[..., None]).exp().sum(-1)).log()
    local = targets.long() - tensor.rank * ids
    elsewhere = (local < 0) | (local >= ids)
    hit = logits.gather(-1, local.masked_fill(elsewhere, 0)[..., None])[..., 0]
    return RowLoss(log_z - tensor.sum(hit.masked_fill(elsewhere, 0.0)), log_z)


def weighted_sum(loss: RowLoss, weights: Tensor | None, z_loss: float) -> Tensor:
    """``sum(w * (nll + z_loss * log_z^2))``: to be divided by W, the weights of the whole batch.

    The second term is PaLM's z-loss (2204.02311, section 5), which keeps log_z near 0.
    """
    row = loss.nll if z_loss == 0 else loss.nll + z_loss * loss.log_z.square()
    return (row if weights is None else row * weights).sum()
