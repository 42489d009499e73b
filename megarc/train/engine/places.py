"""Where DeepSpeed 0.19.8 keeps the master of a parameter, and which part of it this rank holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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
        call: which of the updates of its group the engine makes for it: ZeRO 3 makes one a buffer, others one.
    """

    name: str
    record: Record
    boxes: list[Box]
    flat: Tensor
    offset: int
    size: int
    call: int = 0

    def of(self, buffer: Tensor) -> Tensor:
        """This part [size] of a buffer that is laid out as ``flat``."""
        return buffer.view(-1).narrow(0, self.offset, self.size)


def pieces(engine: Engine) -> Iterator[Piece]:
    """All that this rank holds, in the order of ``engine.parameters()``. With ZeRO 0 every data rank holds all.

    A piece may have no element, with ZeRO 3: others hold the parameter.
    """
    for name, parameter, record in engine.parameters():
        place = _locate(engine, parameter)
        if place is not None:
            boxes = cut(record.boxes, place.start, place.start + place.size)
            yield Piece(name, record, boxes, place.flat, place.offset, place.size, place.call)


def refresh(engine: Engine) -> None:
    """After masters were filled: the weights that the model computes with, from the masters."""
    optimizer = engine.deepspeed.optimizer
    stage = engine.config.parallel.zero
    if stage in (1, 2):
        optimizer.update_lp_params()
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()
    elif stage == 3:
        optimizer._partition_all_parameters()
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
        optimizer.invalidate_secondary_tensor()


class _Place(NamedTuple):
    """``size`` elements of this rank's shard of a parameter, from ``start`` on, lie at ``offset`` of ``flat``."""

    flat: Tensor
    offset: int
    start: int
    size: int
    call: int = 0


def _locate(engine: Engine, parameter: nn.Parameter) -> _Place | None:
    optimizer = engine.deepspeed.optimizer
    stage = engine.config.parallel.zero
    if stage == 0:
        return _Place(parameter, 0, 0, parameter.numel())
    if stage == 3:
        group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start = optimizer._get_param_partition_rank(parameter) * size
        size = max(0, min(size, parameter.ds_numel - start))
        return _Place(optimizer.fp32_partitioned_groups_flat[group], offset, start, size, group)
    mapping = parameter._hp_mapping
    if mapping is None:  # this rank owns nothing of it
        return None
    flat = optimizer.optimizer.param_groups[mapping.param_group_index]["params"][0]
    low, high = mapping.lp_fragment_address, mapping.hp_fragment_address
    return _Place(flat, high.start, low.start, low.numel)
