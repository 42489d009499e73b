"""The small record that each parameter carries: what it is, whatever rank holds which part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from megarc.parallel import Box, TensorParallel, whole

Kind = Literal["embedding", "hidden", "residual", "readout", "router", "norm", "bias"]


@dataclass(frozen=True, slots=True)
class Record:
    """Full shape and kind of one parameter, and which part of it this rank's module has.

    ``residual`` is a matrix that writes into the residual stream, ``router`` one that chooses experts. ``boxes`` is
    all of it, or this tensor rank's shard. ``parts`` matrices of equal height
    lie one above the other (keys above values, gate above up). Initial values,
    weight decay, learning rates, Muon, norms and checkpoints read this.
    """

    shape: tuple[int, ...]
    kind: Kind
    boxes: tuple[Box, ...]
    split: bool  # over the tensor group; else every rank of it holds the same
    parts: int = 1
    experts: int = 1  # expert ranks that share the parts out

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: to matrices, not to gains and biases."""
        return self.kind not in ("norm", "bias")

    @property
    def in_block(self) -> bool:
        """Whether it is a matrix of a block, which Muon updates where it is asked for."""
        return self.kind in ("hidden", "residual")


def vector(width: int) -> nn.Parameter:
    """An empty gain, held whole by every rank."""
    return _parameter((width,), Record((width,), "norm", tuple(whole((width,))), split=False))


def bias(width: int) -> nn.Parameter:
    """An empty bias, held whole by every rank."""
    return _parameter((width,), Record((width,), "bias", tuple(whole((width,))), split=False))


def matrix(
    rows: int,
    columns: int,
    kind: Kind,
    tensor: TensorParallel,
    split: int | None = None,
    parts: int = 1,
    shared_out: bool = False,
) -> nn.Parameter:
    """An empty matrix [rows, columns], or this rank's shard of it.

    Args:
        split: the dimension that is split over the tensor group; None: held whole.
        parts: matrices of equal height that lie one above the other, each split alike.
        shared_out: over expert ranks, each of which has some of the parts.
    """
    ranks = tensor.expert.size if shared_out else 1
    height, own = rows // parts, parts // ranks
    first = tensor.expert.rank * own if shared_out else 0
    size = 1 if split is None else tensor.size
    if split == 1:
        width = columns // size
        boxes = [Box(first * height, (first + own) * height, tensor.rank * width, (tensor.rank + 1) * width)]
    elif size > 1:
        cut = height // size
        tops = [part * height + tensor.rank * cut for part in range(first, first + own)]
        boxes = [Box(top, top + cut, 0, columns) for top in tops]
    else:
        boxes = [Box(first * height, (first + own) * height, 0, columns)]
    shape = (sum(box.bottom - box.top for box in boxes), boxes[0].width)
    parameter = _parameter(shape, Record((rows, columns), kind, tuple(boxes), size > 1, parts, ranks))
    if size > 1:
        # DeepSpeed counts parameters with this mark on every tensor rank, others once.
        parameter.tensor_model_parallel = True
    if ranks > 1:
        # It reduces gradients of these over the ranks that hold the same experts.
        parameter.allreduce = False
        parameter.group_name = expert_group_name(ranks)
    return parameter


def expert_group_name(ranks: int) -> str:
    """DeepSpeed's name of a group of so many expert ranks."""
    return f"ep_size_{ranks}"


def state_vector(width: int) -> Tensor:
    """A vector of zeros, float32, for a buffer: state that no gradient changes, and that every rank holds whole."""
    # As a type of its own: ZeRO 3 makes new tensors in the model's.
    values = torch.zeros(width).to(torch.float32)
    values.record = Record((width,), "bias", tuple(whole((width,))), split=False)
    return values


def record_of(parameter: Tensor) -> Record:
    """The record of a parameter of ours, or of a buffer that is state."""
    return parameter.record


def named_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers of a model that a checkpoint holds beside its parameters."""
    return ((name, buffer) for name, buffer in model.named_buffers() if hasattr(buffer, "record"))


def named_values(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and state: all that makes the model what it is."""
    yield from model.named_parameters()
    yield from named_state(model)


def _parameter(shape: Sequence[int], record: Record) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(shape))
    parameter.record = record
    return parameter
