"""One rank of any number, built and run with fake tensors and a fake process group.

Shapes, parameters and collectives are those of the real code: the rank's layers
run forward and backward on one micro-batch, nothing is computed or allocated.
What DeepSpeed adds (optimizer state, gradient reduction) comes from the
formulas of ZeRO (Rajbhandari et al. 2020, 1910.02054).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from megarc.errors import UserError
from megarc.model import Layer, Plan, layers, row_loss, stage_bounds
from megarc.parallel import Group, Groups, TensorParallel, Topology
from megarc.train import RunConfig


@dataclass(frozen=True, slots=True)
class Collective:
    """``times`` a step, ``elements`` each (of the whole tensor that is reduced, gathered or sent)."""

    what: str
    group: str
    ranks: int
    times: int
    elements: int


@dataclass(frozen=True, slots=True)
class DryRun:
    """What one rank has and does. ``activation_bytes`` are one micro-batch's."""

    rank: int
    topology: Topology
    zero: int
    layers: list[str]
    parameters: int
    weight_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    activation_bytes: int
    in_flight: int  # micro-batches whose activations are held at once, by 1F1B
    collectives: list[Collective] = field(default_factory=list)


def dry_run(config: RunConfig, world: int, rank: int) -> DryRun:
    """Rank ``rank`` of ``world``, in this process.

    Args:
        config: with ``model.vocabulary`` given, or resolved.

    Raises:
        UserError: where the topology does not fit.
    """
    parallel = config.parallel
    if not 0 <= rank < world:
        raise UserError(f"rank {rank} of {world} ranks: it must lie between 0 and {world - 1}")
    topology = Topology.fit(
        world, tensor=parallel.tensor, pipeline=parallel.pipeline, sequence=parallel.sequence
    )
    if config.batch.size % topology.data:
        raise UserError(f"batch.size {config.batch.size} is not a multiple of the {topology.data} data ranks")
    share = config.batch.size // topology.data
    micro_batch = config.batch.micro or share
    with _fake_world(topology, rank) as groups, FakeTensorMode(), _Counting(groups) as counting:
        stage, activation_bytes, parameters, boundary = _run_stage(config, groups, micro_batch)
    micro_batches = share // micro_batch
    place = topology.place(rank)
    width = 2 if config.precision == "bf16" else 4
    shared = topology.data
    inside = [
        Collective(c.what, c.group, c.ranks, c.times * micro_batches, c.elements) for c in counting.seen
    ]
    return DryRun(
        rank=rank,
        topology=topology,
        zero=parallel.zero,
        layers=[layer.name for layer in stage],
        parameters=parameters,
        weight_bytes=parameters * width / (shared if parallel.zero == 3 else 1),
        gradient_bytes=parameters * 4 / (shared if parallel.zero >= 2 else 1),
        # masters (beside 16-bit weights only) and both moments, float32
        optimizer_bytes=parameters * (12 if width == 2 else 8) / (shared if parallel.zero >= 1 else 1),
        activation_bytes=activation_bytes,
        in_flight=min(topology.pipeline - place["pipeline"], micro_batches),
        collectives=inside
        + _between_stages(topology, place["pipeline"], micro_batches, boundary)
        + _over_data(topology, parallel.zero, parameters, micro_batches),
    )


def _run_stage(config: RunConfig, groups: Groups, micro_batch: int) -> tuple[list[Layer], int, int, int]:
    """Its layers, bytes kept for the backward pass, parameters, elements that leave a stage."""
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
            flow = layer.run(modules[layer.name], flow)
        if last == len(listed):
            targets = torch.zeros(micro_batch, window.stride, dtype=torch.long)
            flow = (row_loss(flow, targets, tensor).nll.sum(),)
    flow[0].backward(torch.ones_like(flow[0]))
    return listed[first:last], held.bytes, held.parameters, boundary


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


class _Counting(TorchDispatchMode):
    """Sees every collective of the layers."""

    def __init__(self, groups: Groups) -> None:
        super().__init__()
        self.groups = groups
        self.counts: dict[tuple[str, int], int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            name = function._opname.strip("_")
            tensors = [
                leaf for leaf in torch.utils._pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor)
            ]
            largest = max(tensor.numel() for tensor in tensors)
            self.counts[name, largest] = self.counts.get((name, largest), 0) + 1
        return function(*args, **(kwargs or {}))

    @property
    def seen(self) -> list[Collective]:
        size = self.groups.tensor.size
        return [Collective(name, "tensor", size, times, n) for (name, n), times in self.counts.items()]


def _between_stages(topology: Topology, stage: int, micro_batches: int, elements: int) -> list[Collective]:
    neighbours = (stage > 0) + (stage < topology.pipeline - 1)
    if not neighbours:
        return []
    return [Collective("send and receive", "pipeline", 2, 2 * neighbours * micro_batches, elements)]


def _over_data(topology: Topology, zero: int, parameters: int, micro_batches: int) -> list[Collective]:
    """Of gradients and weights: FIELD's 2, 2, 2, 3 times the parameters with one micro-batch."""
    size = topology.data
    if size == 1:
        return []
    if zero == 0:
        return [Collective("allreduce of gradients", "data", size, 1, parameters)]
    if zero == 1:
        return [
            Collective("reduce_scatter of gradients", "data", size, 1, parameters),
            Collective("allgather of weights", "data", size, 1, parameters),
        ]
    gather = Collective(
        "allgather of weights", "data", size, 1 if zero == 2 else 2 * micro_batches, parameters
    )
    return [Collective("reduce_scatter of gradients", "data", size, micro_batches, parameters), gather]


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _fake_world(topology: Topology, rank: int) -> Iterator[Groups]:
    if dist.is_initialized():
        raise UserError("a dry run takes a process of its own: start it with python, without a launcher")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=topology.world)
    try:
        found = {}
        for dimension in ("tensor", "data", "pipeline"):
            ranks = next(ranks for ranks in topology.groups(dimension) if rank in ranks)
            found[dimension] = Group(ranks.index(rank), len(ranks), dist.new_group(ranks))
        yield Groups(Group(rank, topology.world), found["data"], found["tensor"], found["pipeline"], topology,
                     torch.device("cpu"))  # fmt: skip
    finally:
        dist.destroy_process_group()
