"""Initial values: a function of (seed, parameter's name, rows), never of who holds what.

Matrices are normal with ``initial_std``; those that write into the residual
stream are smaller by sqrt(2 * layers), so that the stream's variance does not
grow with depth (GPT-2). ``parametrization`` says what changes with the width. Gains
are 1, biases 0. Values are drawn by blocks of rows, each from a generator of its own:
a rank draws the blocks that it touches and no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from megarc.model.config import ModelConfig
from megarc.model.parameter_record import Record, record_of
from megarc.model.parametrization import initial_std
from megarc.parallel import Box, size

_BLOCK = 1 << 16  # elements, about: what is drawn at once, and at most drawn in vain


@torch.no_grad()
def initialise(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fills every parameter of ``model``."""
    for name, parameter in model.named_parameters():
        record = record_of(parameter)
        values = initial_values(name, record, config, seed, record.boxes)
        parameter.copy_(values.view(parameter.shape))


def initial_values(name: str, record: Record, config: ModelConfig, seed: int, boxes: Sequence[Box]) -> Tensor:
    """The values of ``boxes`` of the full parameter ``name``, one after the other, float32 1-D."""
    if record.kind == "norm":
        return torch.ones(size(boxes))
    if record.kind == "bias":
        return torch.zeros(size(boxes))
    std = initial_std(record.kind, config)
    rows, columns = record.shape
    height = max(1, _BLOCK // columns)
    pieces = [torch.empty(0)]
    for box in boxes:
        for block in range(box.top // height, -(-box.bottom // height)):
            first, last = block * height, min((block + 1) * height, rows)
            drawn = torch.empty(last - first, columns)
            drawn.normal_(0.0, std, generator=_generator(seed, name, block))
            top, bottom = max(first, box.top) - first, min(last, box.bottom) - first
            pieces.append(drawn[top:bottom, box.left : box.right].reshape(-1))
    return torch.cat(pieces)


def _generator(seed: int, name: str, block: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{name}/{block}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
