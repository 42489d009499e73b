"""How long a step takes on a device: the roofline of each operation, links, the pipeline's bubble, the update.

    step = (m + p - 1) x (a micro-batch on the slowest stage)  + gradients over data ranks + update + weights

m micro-batches, p stages (1F1B: Narayanan et al. 2021, 2104.04473). What is overlapped is what the engine
overlaps: on a GPU the traffic of ZeRO 2 and 3 runs beside the blocks; all but one block's part is hidden as long
as the blocks take longer. Tensor parallel collectives and sends between stages are waited for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from megarc.parallel import Topology
from megarc.plan.device import DeviceConfig
from megarc.plan.links import Link, Links
from megarc.plan.memory import stages_of
from megarc.plan.muon_time import Shape, muon_exchanged, muon_matrices, muon_seconds
from megarc.plan.operations import Operation
from megarc.plan.shares import Shares
from megarc.plan.work import Work
from megarc.train import RunConfig, passes

PARTS = {
    "products": "matrix products",
    "attention": "attention",
    "memory": "norms, activations, loss: by bytes",
    "tensor": "collectives of tensor ranks",
    "context": "keys and values over context ranks",
    "experts": "rows to experts on other ranks and back",
    "stages": "sends between stages",
    "bubble": "pipeline bubble",
    "data": "gradients and weights over data ranks, not hidden",
    "update": "optimizer's update",
    "exchange": "Muon's exchange of matrices",
    "host": "transfers from and to the host",
    "fixed": "beside all work",
}


_BESIDE = 0.15
"""Of a hidden collective's time that the blocks lose to it: NCCL takes 16 to 24 of about 132 units."""


_PART_OF = {
    "product": "products", "attention": "attention", "memory": "memory", "reduce": "tensor", "gather": "tensor",
    "scatter": "tensor", "gather_rows": "context", "scatter_rows": "context", "exchange": "experts",
}  # fmt: skip


_NORM = 4
"""Bytes an element of the gradient's norm, beside a measured update."""


class Seconds(NamedTuple):
    """Of some operations, by kind."""

    products: float = 0.0
    attention: float = 0.0
    memory: float = 0.0
    tensor: float = 0.0
    context: float = 0.0
    experts: float = 0.0

    def plus(self, other: Seconds, times: float = 1.0) -> Seconds:
        return Seconds(*(a + times * b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step on the slowest rank, by part (``PARTS``), and the terms that made them for ``--explain``."""

    parts: dict[str, float]
    micro_batches: int
    terms: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


class Costs(NamedTuple):
    """Seconds of one micro-batch, forward and backward: the embedding, the head with the loss, a mean block. And the
    shapes of the blocks' matrices that Muon updates."""

    embedding: Seconds
    head: Seconds
    block: Seconds
    matrices: list[Shape]

    @classmethod
    def of(cls, config: RunConfig, device: DeviceConfig, work: Work, between: Links) -> Costs:
        embedding, head = (
            _summed([one for one in work.bare if (one.part == "embedding") == wanted], device, between)
            for wanted in (True, False)
        )
        ways = (device, between, config.execution.fp8, config.execution.attention)
        block = Seconds()
        for count, each in work.blocks:
            seconds = _summed(each.one, *ways).plus(_summed(each.none, *ways), -1.0)
            block = block.plus(seconds, count / config.model.layers)
        return cls(embedding, head, block, muon_matrices(config))


def step_time(config: RunConfig, topology: Topology, device: DeviceConfig, costs: Costs) -> StepTime:
    """Of a configuration whose micro-batch is known; its step of the first size."""
    config = config.shared_among(topology.replicas)
    links = Links.of(topology, device, config.parallel.expert)
    micro_batch = config.batch.micro_batch
    count = config.batch.size // (topology.data * micro_batch) * passes(config)
    stage, blocks = _slowest_stage(config, topology, costs)
    shares = Shares.of(config, topology)
    sends = _sends(config, topology, links)
    a_micro_batch = sum(stage) + sends
    bubble = (topology.pipeline - 1) * a_micro_batch
    hidden = sum(stage) / max(1, blocks) * max(0, blocks - 1) if device.kind == "cuda" else 0.0
    data = _data_seconds(blocks, links, shares, count, hidden)
    summing = count * device.memory_seconds(shares.summed_bytes) if shares.summed_bytes else 0.0
    host = shares.host_bytes / device.host + shares.host_update_bytes / device.host_bandwidth
    iterations = muon_seconds(costs.matrices, config, topology, device)
    exchange = sum(
        links.stage.exchange(4 * sent) for sent in muon_exchanged(costs.matrices, config, topology) if sent
    )
    update = _update_seconds(device, shares) + iterations
    parts = {name: value * count for name, value in zip(Seconds._fields, stage, strict=True)}
    parts |= {"stages": sends * count, "bubble": bubble, "data": data, "update": update + summing,
              "exchange": exchange, "host": host, "fixed": device.measured.step}  # fmt: skip
    terms = [
        f"{count} micro-batches of {micro_batch} on the slowest of {topology.pipeline} stages ({blocks} blocks)",
        f"a micro-batch there: {_ms(sum(stage))} = products {_ms(stage.products)} + attention {_ms(stage.attention)} "
        f"+ by bytes {_ms(stage.memory)} + tensor collectives {_ms(stage.tensor)}"
        + (
            f" + keys and values over {topology.context} context ranks {_ms(stage.context)}"
            if stage.context
            else ""
        )
        + (
            f" + rows over {config.parallel.expert} expert ranks {_ms(stage.experts)}"
            if stage.experts
            else ""
        )
        + f"; sends {_ms(sends)}",
        f"bubble = (p - 1) x a micro-batch = {topology.pipeline - 1} x {_ms(a_micro_batch)} = {_ms(bubble)}",
        f"{'context x data' if topology.context > 1 else 'data'} ranks: {topology.replicas} over "
        f"{links.data.bandwidth / 1e9:.0f} GB/s, {shares.explained}; not hidden {_ms(data)}",
        f"update: {shares.own / 1e6:.1f}M elements of this rank = {_ms(update)}; "
        f"gradients of micro-batches summed {_ms(summing)}"
        + (f"; Muon's iterations {_ms(iterations)}, exchange {_ms(exchange)}" if iterations else ""),
    ]
    return StepTime(parts, count, terms)


def operation_seconds(
    one: Operation,
    device: DeviceConfig,
    between: Links,
    fp8: bool,
    engine: str = "auto",
) -> float:
    """Of one operation of the trace, attention by ``engine``."""
    if one.kind == "product":
        return device.product_seconds(
            one.batch, one.rows, one.columns, one.inner, one.width, one.read_written, fp8
        )
    if one.kind == "attention":
        return device.attention_seconds(one.flops, one.rows, one.backward, one.width, engine)
    if one.kind == "memory":
        operators = one.operators if device.kind == "cpu" else 1
        return device.memory_seconds(one.read_written, one.functions, operators)
    if one.kind == "gather_rows" or one.kind == "scatter_rows":
        return between.context.seconds("gather", one.read_written)
    if one.kind == "exchange":
        ranks = between.expert.ranks
        return between.expert.exchange(one.read_written * (ranks - 1) / ranks)
    return between.tensor.seconds(one.kind, one.read_written)


def _slowest_stage(config: RunConfig, topology: Topology, costs: Costs) -> tuple[Seconds, int]:
    """Of one micro-batch, and how many blocks the stage has."""
    stages = stages_of(config.model, topology.pipeline)
    found = []
    for number, stage in enumerate(stages):
        seconds = Seconds().plus(costs.block, stage.blocks)
        seconds = seconds.plus(costs.embedding) if number == 0 else seconds
        found.append((seconds.plus(costs.head) if number == len(stages) - 1 else seconds, stage.blocks))
    return max(found, key=lambda one: sum(one[0]))


def _summed(
    operations: list[Operation],
    device: DeviceConfig,
    between: Links,
    fp8: bool = False,
    engine: str = "auto",
) -> Seconds:
    """Of operations."""
    found = dict.fromkeys(Seconds._fields, 0.0)
    for one in operations:
        found[_PART_OF[one.kind]] += operation_seconds(one, device, between, fp8, engine)
    return Seconds(**found)


def _sends(config: RunConfig, topology: Topology, links: Links) -> float:
    """Hidden rows forward and their gradients back, of a micro-batch in a middle stage."""
    if topology.pipeline == 1:
        return 0.0
    width = 2 if config.precision == "bf16" else 4
    rows = config.window.largest().rows // topology.context // (topology.tensor if topology.sequence else 1)
    moved = config.batch.micro_batch * rows * config.model.hidden * width
    return 2 * (1 if topology.pipeline == 2 else 2) * links.pipeline.send(moved)


def _data_seconds(blocks: int, links: Links, shares: Shares, count: int, hidden: float) -> float:
    """What of the data ranks' traffic nothing hides: ``hidden`` seconds of a micro-batch can. It goes by blocks."""
    pieces = max(1, blocks)

    def link(alike: bool) -> Link:
        return links.alike if alike else links.data

    beside = sum(pieces * link(alike).seconds(what, moved / pieces) for what, moved, alike in shares.beside)
    after = sum(link(alike).seconds(what, moved) for what, moved, alike in shares.after)
    exposed = max(beside - hidden, beside / pieces)
    return count * (exposed + _BESIDE * (beside - exposed)) + after


def _update_seconds(device: DeviceConfig, shares: Shares) -> float:
    fresh = device.fresh_seconds(shares.flattened)
    if device.measured.optimizer is not None and shares.update_bytes:
        copied = shares.copied_bytes + _NORM * shares.own
        return shares.own / device.measured.optimizer + device.memory_seconds(copied) + fresh
    return device.memory_seconds(shares.update_bytes + shares.copied_bytes) + fresh


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"
