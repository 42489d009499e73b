"""One stage with fake tensors: what it keeps, and what it tells the other tensor ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from megarc.model import Layer, Plan, is_costly, layers, row_loss, stage_bounds
from megarc.parallel import Groups, TensorParallel
from megarc.train import RunConfig


class Stage(NamedTuple):
    """Its layers, bytes kept for the backward pass, parameters, elements that leave it."""

    layers: list[Layer]
    activation_bytes: int
    parameters: int
    boundary: int


def run_stage(config: RunConfig, groups: Groups, micro_batch: int, counting: Counting) -> Stage:
    """Forward and backward of one micro-batch."""
    window = config.window.build()
    tensor = TensorParallel(groups.tensor, groups.topology.sequence)
    plan = Plan(window.loss_rows, window.recent, documents=False)
    listed = layers(config.model, config.execution, tensor, plan)
    bounds = stage_bounds(listed, groups.topology.pipeline)
    first, last = bounds[groups.pipeline.rank], bounds[groups.pipeline.rank + 1]
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    modules: dict[str, torch.nn.Module] = {}
    rows = window.rows // (groups.tensor.size if tensor.sequence else 1)
    boundary = micro_batch * rows * config.model.hidden
    flow: Any
    if first == 0:
        flow = (torch.zeros(micro_batch, window.rows, dtype=torch.long),)
    else:
        flow = (torch.zeros(micro_batch, rows, config.model.hidden, dtype=dtype, requires_grad=True),)
    for layer in listed[first:last]:
        if layer.name not in modules:
            with _default_dtype(dtype):
                modules[layer.name] = layer.build()
    held = _Held([parameter for module in modules.values() for parameter in module.parameters()])
    with torch.autograd.graph.saved_tensors_hooks(held.keep, lambda tensor: tensor):
        for layer in listed[first:last]:
            before = counting.kept_bytes
            flow = layer.run(modules[layer.name], flow)
            if layer.name.startswith("blocks.") and config.execution.recompute == "selective":
                held.bytes += counting.kept_bytes - before
        if last == len(listed):
            targets = torch.zeros(micro_batch, window.stride, dtype=torch.long)
            flow = (row_loss(flow, targets, tensor).nll.sum(),)
    flow[0].backward(torch.ones_like(flow[0]))
    return Stage(listed[first:last], held.bytes, held.parameters, boundary)


def one_block(config: RunConfig, groups: Groups, micro_batch: int) -> int:
    """Bytes that a block keeps where nothing is computed again."""
    window, tensor = config.window.build(), TensorParallel(groups.tensor, groups.topology.sequence)
    rows = window.rows // (groups.tensor.size if tensor.sequence else 1)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    plan = Plan(window.loss_rows, window.recent, documents=False)
    execution = config.execution.model_copy(update={"recompute": "none"})
    listed = layers(config.model, execution, tensor, plan)
    block = next(layer for layer in listed if layer.name.startswith("blocks."))
    with _default_dtype(dtype):
        module = block.build()
    held = _Held(list(module.parameters()))
    x = torch.zeros(micro_batch, rows, config.model.hidden, dtype=dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(held.keep, lambda tensor: tensor):
        block.run(module, (x,))
    return held.bytes


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
    """Sees every collective of the layers, and what selective recomputation keeps beside autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[tuple[str, int], int] = {}
        self.kept_bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            name = function._opname.strip("_")
            leaves = torch.utils._pytree.tree_leaves(args)
            largest = max(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))
            self.counts[name, largest] = self.counts.get((name, largest), 0) + 1
        result = function(*args, **(kwargs or {}))
        if is_costly(function):
            for leaf in torch.utils._pytree.tree_leaves(result):
                self.kept_bytes += leaf.numel() * leaf.itemsize if isinstance(leaf, torch.Tensor) else 0
        return result


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
