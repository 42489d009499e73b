"""One stage with fake tensors: what it keeps, and what it tells the other tensor ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from megarc.data import Batch
from megarc.model import (
    Beside,
    Head,
    Layer,
    default_dtype,
    head_loss,
    is_costly,
    layers,
    record_of,
    stage_bounds,
    start_tallies,
)
from megarc.parallel import EvenExchange, Exchange, Groups, TensorParallel
from megarc.train import RowSharing, RunConfig, dtype_of


class Stage(NamedTuple):
    """Its layers, bytes kept for the backward pass, parameters, those in blocks' matrices, those of experts that ranks
    share out, elements that leave it."""

    layers: list[Layer]
    activation_bytes: int
    parameters: int
    matrices: int
    routed: int
    boundary: int


def run_stage(config: RunConfig, groups: Groups, micro_batch: int, counting: Counting) -> Stage:
    """Forward and backward of one micro-batch."""
    tensor = _Even.of(groups)
    listed = _layers(config, tensor)
    bounds = stage_bounds(listed, groups.topology.pipeline)
    first, last = bounds[groups.pipeline.rank], bounds[groups.pipeline.rank + 1]
    hidden = _hidden(config, groups, micro_batch)
    tokens, beside = _inputs(config, groups, micro_batch)
    x = tokens if first == 0 else hidden
    modules: dict[str, torch.nn.Module] = {}
    for layer in listed[first:last]:
        if layer.name not in modules:
            modules[layer.name] = _built(layer, config)
    held = _Held([parameter for module in modules.values() for parameter in module.parameters()])
    with torch.autograd.graph.saved_tensors_hooks(held.keep, lambda tensor: tensor):
        for layer in listed[first:last]:
            before = counting.kept_bytes
            x = layer.run(modules[layer.name], x, beside)
            if layer.name.startswith("blocks.") and config.execution.recompute == "selective":
                held.bytes += counting.kept_bytes - before
    x.backward(torch.ones_like(x))
    records = [(record_of(one), one.numel()) for module in modules.values() for one in module.parameters()]
    matrices = sum(elements for record, elements in records if record.in_block)
    routed = sum(elements for record, elements in records if record.experts > 1)
    return Stage(listed[first:last], held.bytes, held.parameters, matrices, routed, hidden.numel())


def one_block(config: RunConfig, groups: Groups, micro_batch: int) -> int:
    """Bytes that a block keeps where nothing is computed again; the largest's."""
    execution = config.execution.model_copy(update={"recompute": "none"})
    config = config.model_copy(update={"execution": execution})
    kinds = config.model.kinds().values()
    return max(_held_by(config.model_copy(update={"model": one}), groups, micro_batch) for one in kinds)


def _held_by(config: RunConfig, groups: Groups, micro_batch: int) -> int:
    """Of the one block of such a model."""
    listed = _layers(config, _Even.of(groups))
    block = next(layer for layer in listed if layer.name.startswith("blocks."))
    module = _built(block, config)
    held = _Held(list(module.parameters()))
    with torch.autograd.graph.saved_tensors_hooks(held.keep, lambda tensor: tensor):
        _, beside = _inputs(config, groups, micro_batch)
        block.run(module, _hidden(config, groups, micro_batch), beside)
    return held.bytes


def _layers(config: RunConfig, tensor: TensorParallel) -> list[Layer]:
    return layers(config.model, config.execution, tensor)


def _inputs(config: RunConfig, groups: Groups, micro_batch: int) -> tuple[Tensor, Beside]:
    """Token ids, and what stands beside the hidden rows: of whole windows, or of a context rank's rows."""
    window, tensor = config.window.largest(), _Even.of(groups)
    sharing = RowSharing.of(config, groups)
    if sharing is None:
        loss = _loss(config, tensor, (micro_batch, window.stride))
        tokens = torch.zeros(micro_batch, window.rows, dtype=torch.long)
        return tokens, Beside(loss, window.loss_rows, window.recent)
    recent: npt.NDArray[np.int32] = np.full(micro_batch, window.recent, dtype=np.int32)
    batch = Batch(np.zeros((micro_batch, window.tokens), np.int32), recent, np.arange(micro_batch))
    sharing = replace(sharing, stride=window.stride)
    own = sharing.own(batch, sharing.shares(batch), groups.device)
    return own.inputs, Beside(_loss(config, tensor, own.rows.shape), own.rows, own.seen, own.positions)


def _loss(
    config: RunConfig, tensor: TensorParallel, rows: tuple[int, ...]
) -> Callable[[Tensor, Tensor], Tensor]:
    head = Head.of(config.model, config.execution, tensor)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        targets = torch.zeros(rows, dtype=torch.long)
        return head_loss(head, hidden, weight, targets).objective

    return loss


def _hidden(config: RunConfig, groups: Groups, micro_batch: int) -> torch.Tensor:
    """What enters a block: [micro-batch, rows (or this rank's part of them), hidden]."""
    topology = groups.topology
    parts = topology.context * (topology.tensor if topology.sequence else 1)
    shape = (micro_batch, config.window.largest().rows // parts, config.model.hidden)
    return torch.zeros(shape, dtype=dtype_of(config), requires_grad=True)


def _built(layer: Layer, config: RunConfig) -> torch.nn.Module:
    with default_dtype(dtype_of(config)):
        module = layer.build()
    start_tallies(module)
    return module


class _Even(TensorParallel):
    """Rows have no values here: each rank sends as many to each other's experts."""

    def exchange(self, counts: Tensor, rows: int) -> Exchange:
        return EvenExchange(counts, rows, self.expert)


class _Held:
    """Counts, once each, the storages that autograd keeps and that are no parameter's."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.parameters = sum(parameter.numel() for parameter in parameters)
        self.bytes = 0
        self._seen = {parameter.untyped_storage()._cdata for parameter in parameters}

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self.bytes += storage.nbytes()
        return tensor


class Counting(TorchDispatchMode):
    """Sees every collective of the layers, and what selective recomputation keeps beside autograd.

    ``counts``: how often each, by its name, the ranks of its group and its elements.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[tuple[str, tuple[int, ...], int], int] = {}
        self.kept_bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            name = function._opname.strip("_")
            leaves = torch.utils._pytree.tree_leaves(args)
            largest = max(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))
            key = (name, _ranks_of(leaves), largest)
            self.counts[key] = self.counts.get(key, 0) + 1
        result = function(*args, **(kwargs or {}))
        if is_costly(function):
            for leaf in torch.utils._pytree.tree_leaves(result):
                self.kept_bytes += leaf.numel() * leaf.itemsize if isinstance(leaf, torch.Tensor) else 0
        return result


def _ranks_of(arguments: Sequence[Any]) -> tuple[int, ...]:
    """The ranks of the group that a collective's arguments name."""
    for one in arguments:
        if isinstance(one, torch.ScriptObject) and "ProcessGroup" in str(one._type()):
            return tuple(dist.get_process_group_ranks(dist.ProcessGroup.unbox(one)))
    raise AssertionError("a collective without a group")
