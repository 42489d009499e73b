"""The matrices of a model's blocks, without building the model: one block of each kind, on the meta device."""

from __future__ import annotations

import torch

from megarc.model import ExecutionConfig, ModelConfig, Record, Transformer, record_of
from megarc.parallel import TensorParallel


def block_matrices(
    model: ModelConfig, execution: ExecutionConfig | None = None, place: TensorParallel | None = None
) -> dict[str, dict[str, Record]]:
    """Of a block of each kind (``ModelConfig.kind``), as a rank at ``place`` has it: name in the block, and record."""
    with torch.device("meta"):
        blocks = {kind: Transformer(one, execution, place).blocks[0] for kind, one in model.kinds().items()}
    records = {
        kind: {name: record_of(parameter) for name, parameter in block.named_parameters()}
        for kind, block in blocks.items()
    }
    return {
        kind: {name: record for name, record in held.items() if record.in_block}
        for kind, held in records.items()
    }
