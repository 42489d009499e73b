"""Initial values: a function of (seed, parameter's name, rows), never of who holds what.

Matrices are normal with ``initial_std``; those that write into the residual
stream are smaller by sqrt(2 * layers), so that the stream's variance does not
grow with depth (GPT-2). Gains are 1. Values are drawn by blocks of rows, each
from a generator of its own: a rank draws the blocks that it touches and no other.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from megarc.model.config import ModelConfig
from megarc.model.record import Record, record_of

_BLOCK = 1 << 16  # elements, about: what is drawn at once, and at most drawn in vain


@torch.no_grad()
def initialise(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fills every parameter of ``model``."""
    for name, parameter in model.named_parameters():
        record = record_of(parameter)
        values = initial_values(name, record, config, seed, 0, parameter.numel())
        parameter.copy_(values.view(parameter.shape))


def initial_values(
    name: str, record: Record, config: ModelConfig, seed: int, start: int, stop: int
) -> Tensor:
    """Elements ``start .. stop-1`` of the flattened full parameter ``name``, float32 [stop - start]."""
    if record.kind == "norm":
        return torch.ones(stop - start)
    std = config.initial_std
    if record.kind == "residual":
        std /= (2 * config.layers) ** 0.5
    columns = record.shape[-1]
    block = max(1, _BLOCK // columns) * columns
    total = record.shape[0] * columns
    values = torch.empty(stop - start)
    for first in range(start // block * block, stop, block):
        last = min(first + block, total)
        drawn = torch.empty(last - first).normal_(0.0, std, generator=_generator(seed, name, first // block))
        left, right = max(first, start), min(last, stop)
        values[left - start : right - start] = drawn[left - first : right - first]
    return values


def _generator(seed: int, name: str, block: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{name}/{block}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
