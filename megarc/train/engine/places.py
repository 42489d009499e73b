"""Where DeepSpeed 0.19.8 keeps the master of a parameter, and which part of it this rank holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from megarc.model import Record
from megarc.parallel import Box, cut

if TYPE_CHECKING:
    from megarc.train.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Piece:
    """This rank's part of one parameter: ``size`` elements from ``offset`` on of the 1-D buffer ``flat``.

    Attributes:
        boxes: where these elements lie in the full parameter.
        flat: the float32 master of this part and of others, one of the optimizer's own parameters.
    """

    name: str
    record: Record
    boxes: list[Box]
    flat: Tensor
    offset: int
    size: int

    def of(self, buffer: Tensor) -> Tensor:
        """This part [size] of a buffer that is laid out as ``flat``."""
        return buffer.view(-1).narrow(0, self.offset, self.size)


def pieces(engine: Engine) -> Iterator[Piece]:
    """All that this rank holds, in the order of ``engine.parameters()``. With ZeRO 0 every data rank holds all."""
    for name, parameter, record in engine.parameters():
        flat, offset, start, size = _locate(engine, parameter)
        if flat is not None and size:
            yield Piece(name, record, cut(record.boxes, start, start + size), flat, offset, size)


def _locate(engine: Engine, parameter: nn.Parameter) -> tuple[Tensor | None, int, int, int]:
    """The buffer, the place in it, the first element of this rank's shard that lies there, and how many do."""
    optimizer = engine.deepspeed.optimizer
    stage = engine.config.parallel.zero
    if stage == 0:
        return parameter, 0, 0, parameter.numel()
    if stage == 3:
        group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start = optimizer._get_param_partition_rank(parameter) * size
        size = max(0, min(size, parameter.ds_numel - start))
        return optimizer.fp32_partitioned_groups_flat[group], offset, start, size
    mapping = parameter._hp_mapping
    if mapping is None:  # this rank owns nothing of it
        return None, 0, 0, 0
    flat = optimizer.optimizer.param_groups[mapping.param_group_index]["params"][0]
    low, high = mapping.lp_fragment_address, mapping.hp_fragment_address
    return flat, high.start, low.start, low.numel
