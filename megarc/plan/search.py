"""Every way to lay a run out over some devices: what each needs, how fast it is, and which is best."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from megarc.errors import UserError
from megarc.model import check_stage_experts, cost_of, layers, splits
from megarc.parallel import TensorParallel, Topology
from megarc.plan.device import DeviceConfig
from megarc.plan.links import Links
from megarc.plan.memory import Memory, predict
from megarc.plan.step import Costs, StepTime, step_time
from megarc.plan.work import Traces
from megarc.train import RunConfig, check_context, check_experts

_LARGEST_MICRO = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """How a run is laid out; ``expert`` of the ``data`` ranks share experts."""

    tensor: int = 1
    context: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1
    sequence: bool = False
    zero: int = 1
    micro_batch: int = 1
    recompute: str = "none"
    offload: str = "none"

    @property
    def topology(self) -> Topology:
        return Topology(self.tensor, self.data, self.pipeline, self.sequence, self.context)

    def config(self, config: RunConfig) -> RunConfig:
        """``config``, laid out so."""
        parallel = config.parallel.model_copy(
            update={
                "tensor": self.tensor, "context": self.context, "pipeline": self.pipeline,
                "expert": self.expert, "sequence": self.sequence, "zero": self.zero,
                "offload": self.offload, "data": None, "world": self.topology.world,
                "node": config.parallel.node if self.zero == 3 else None,
            }
        )  # fmt: skip
        batch = config.batch.model_copy(update={"micro": self.micro_batch})
        execution = config.execution.model_copy(update={"recompute": self.recompute})
        return config.model_copy(update={"parallel": parallel, "batch": batch, "execution": execution})

    def __str__(self) -> str:
        names = ("tensor", *(["context"] if self.context > 1 else []), "pipeline",
                 *(["expert"] if self.expert > 1 else []), "data", "zero")  # fmt: skip
        sizes = [f"{name}={getattr(self, name)}" for name in names]
        sizes += [f"micro={self.micro_batch}", f"recompute={self.recompute}"]
        return ",".join(sizes + ([f"offload={self.offload}"] if self.offload != "none" else []))


@dataclass(frozen=True, slots=True)
class Plan:
    """A layout, what its fullest rank holds, and how long its step takes.

    Attributes:
        memory_gib: at most, with what the device's driver and communication take.
        mfu_exact_mask: with exactly the pairs that the mask allows; ``mfu_full_square``: with n * n.
    """

    layout: Layout
    memory: Memory
    memory_gib: float
    fits: bool
    step: StepTime
    mfu_exact_mask: float
    mfu_full_square: float
    predicted_tokens_per_second: float
    processed_tokens_per_second: float

    def facts(self) -> dict[str, object]:
        """For programs."""
        found = asdict(self.layout)
        found |= {
            "step_seconds": self.step.seconds,
            "memory_gib": self.memory_gib,
            "mfu_exact_mask": self.mfu_exact_mask,
            "mfu_full_square": self.mfu_full_square,
            "fits": self.fits,
            "predicted_tokens_per_second": self.predicted_tokens_per_second,
            "processed_tokens_per_second": self.processed_tokens_per_second,
            "step_parts": self.step.parts,
            "memory_parts_gib": {name: value / 2**30 for name, value in asdict(self.memory).items()},
        }
        return found


@dataclass
class Planner:
    """Plans one run on one kind of device; what was traced once is remembered.

    Args:
        config: with a vocabulary.
    """

    config: RunConfig
    device: DeviceConfig
    traces: Traces = field(init=False)
    _costs: dict[tuple[object, ...], Costs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.traces = Traces(self.config, self.device)

    def plan(self, layout: Layout) -> Plan:
        """Of one layout, which must fit the model, the batch and the devices."""
        config, topology = layout.config(self.config), layout.topology
        config = config.model_copy(update={"device": self.device.kind})
        way = (
            layout.tensor,
            layout.sequence,
            layout.recompute,
            layout.micro_batch,
            layout.context,
            layout.expert,
        )
        work = self.traces.work(*way)
        device, several = (self.device.crowded(), True) if topology.world > 1 else (self.device, False)
        if (way, several) not in self._costs:
            self._costs[way, several] = Costs.of(
                config, device, work, Links.of(topology, device, layout.expert)
            )
        step = step_time(config, topology, device, self._costs[way, several])
        ranks = {0, topology.world - 1}
        memory = max(
            (predict(config, topology, rank, work.footprint) for rank in ranks), key=lambda one: one.peak
        )
        total = _on_device(memory, layout.offload) / 2**30 + self.device.reserved_gib
        # Of the window whose step this is.
        cost, size = cost_of(config.model, window := config.window.largest()), config.batch.size
        peak = self.device.bf16 if config.precision == "bf16" else self.device.fp32
        rate = size / step.seconds
        whole = peak * topology.world
        return Plan(
            layout, memory, total, total <= self.device.memory_gib, step,
            rate * cost.training_flops / whole, rate * cost.training_flops_full_square / whole,
            rate * window.stride, rate * window.rows,
        )  # fmt: skip

    def all(self, gpus: int, offload: bool = True) -> list[Plan]:
        """Every layout on so many devices, best first: those that fit by their step, then the others by memory.

        Context ranks are tried where nothing fits without them; with ``offload`` the host's memory, where nothing
        fits then.

        Raises:
            UserError: where no layout divides the devices, the model and the batch.
        """
        layouts = list(self._layouts(gpus))
        plans = [self.plan(layout) for layout in layouts]
        if not any(plan.fits for plan in plans):
            plans += [
                self.plan(layout) for size in self.context_sizes(gpus) for layout in self._layouts(gpus, size)
            ]
        if not plans:
            raise UserError(self._nothing_divides(gpus))
        if offload and not any(plan.fits for plan in plans):
            plans += [self.plan(other) for layout in layouts for other in _offloaded(layout)]
        return sorted(plans, key=lambda one: (not one.fits, one.step.seconds if one.fits else one.memory_gib))

    def thrifty(self, gpus: int) -> list[Plan]:
        """The layouts that need least memory, without context ranks and offloading: one sample at a time, all computed
        again; in no order, and none where none divides the devices."""
        return [
            self.plan(layout)
            for layout in self._layouts(gpus)
            if layout.micro_batch == 1 and layout.recompute == "full"
        ]

    def one(self, layout: Layout, micro_batches: list[int]) -> list[Plan]:
        """One layout with each of some micro-batches, best first."""
        plans = [self.plan(replace(layout, micro_batch=micro)) for micro in micro_batches]
        return sorted(plans, key=lambda one: (not one.fits, one.step.seconds if one.fits else one.memory_gib))

    def micro_batches(self, data: int) -> list[int]:
        """Those that divide a rank's share of the batch: powers of two, and the share itself where it is small."""
        share = self.config.batch.size // data
        found = [size for size in (1, 2, 4, 8, 16, 32, 64) if share % size == 0]
        return found if share > _LARGEST_MICRO or share in found else [*found, share]

    def context_sizes(self, gpus: int) -> list[int]:
        """Numbers of context ranks to be tried: powers of two that divide every window's rows."""
        with_context = self.config.parallel.model_copy(update={"context": 2, "node": None, "offload": "none"})
        try:
            check_context(with_context, self.config.model, self.config.execution, self.config.window)
        except ValueError:
            return []
        sizes = [1 << power for power in range(1, gpus.bit_length()) if gpus % (1 << power) == 0]
        return [size for size in sizes if all(window.rows % size == 0 for window in self.config.window.all())]

    def _layouts(self, gpus: int, context: int = 1) -> Iterator[Layout]:
        config = self.config
        zeros = (1, 2, 3) if config.precision == "bf16" else (0, 1, 2, 3)
        for tensor in self.tensor_sizes(gpus):
            if gpus % (tensor * context):
                continue
            sequence = tensor > 1 and all(
                window.rows % (context * tensor) == 0 for window in config.window.all()
            )
            for pipeline in _divisors(gpus // (tensor * context), config.model.layers):
                data = gpus // (tensor * context * pipeline)
                if config.batch.size % data:
                    continue
                for zero in zeros if pipeline == 1 else (1,):
                    if data * context == 1 and zero > 1:
                        continue  # the same as 1
                    shape = Layout(tensor, context, pipeline, 1, data, sequence, zero)
                    for expert in self.expert_sizes(shape):
                        for micro in self.micro_batches(data):
                            for recompute in ("none", "selective", "full"):
                                yield replace(shape, expert=expert, micro_batch=micro, recompute=recompute)

    def expert_sizes(self, layout: Layout) -> list[int]:
        """Numbers of data ranks that share experts out, to be tried; they divide data ranks and experts.

        1, those inside a node, whose links are fast, and the largest, which needs the least memory.
        """
        experts = self.config.model.experts
        if experts is None:
            return [1]
        inside = self.device.node // (layout.tensor * layout.context)
        sizes = [
            size
            for size in _divisors(math.gcd(layout.data, experts.count), experts.count)
            if size == 1 or self._experts_fit(replace(layout, expert=size))
        ]
        return [size for size in sizes if size <= max(1, inside) or size == sizes[-1]]

    def _experts_fit(self, layout: Layout) -> bool:
        try:
            check_layout(layout, self.config)
        except (UserError, ValueError):
            return False
        return True

    def tensor_sizes(self, gpus: int) -> list[int]:
        """Those that divide the model and stay inside a node."""
        found = splits(self.config.model)
        return [
            size
            for size in _divisors(gpus, min(self.device.node, 8))
            if all(split.fits(size) for split in found)
        ]

    def _nothing_divides(self, gpus: int) -> str:
        size = self.config.batch.size
        shares = sorted(
            {
                gpus // (tensor * pipeline)
                for tensor in self.tensor_sizes(gpus)
                for pipeline in _divisors(gpus // tensor, self.config.model.layers)
            }
        )
        least = shares[0]
        sizes = sorted(
            {max(1, round(size / data)) * data for data in shares}, key=lambda near: abs(near - size)
        )
        fewer = next(count for count in range(gpus, 0, -1) if self._divides(count))
        return (
            f"batch.size {size} is not a multiple of the data ranks of any layout of {gpus} GPUs (they leave "
            f"{least} or more of them); use batch.size={sizes[0]}, or --gpus {fewer}"
        )

    def _divides(self, gpus: int) -> bool:
        return any(
            self.config.batch.size % (gpus // (tensor * pipeline)) == 0
            for tensor in self.tensor_sizes(gpus)
            for pipeline in _divisors(gpus // tensor, self.config.model.layers)
        )


def check_layout(layout: Layout, config: RunConfig) -> None:
    """What a run with this layout would be refused for, of experts and of context ranks.

    Raises:
        ValueError, UserError: with the reason.
    """
    model, parallel = config.model, layout.config(config).parallel
    check_experts(model, config.execution, parallel, config.optimizer)
    check_context(parallel, model, config.execution, config.window)
    if layout.expert > 1 and layout.pipeline > 1:
        listed = layers(model, config.execution, TensorParallel())
        check_stage_experts(model, listed, layout.pipeline, layout.expert)


def _on_device(memory: Memory, offload: str) -> float:
    """Bytes at most, without what lives in the host's memory."""
    away = memory.masters + memory.moments if offload != "none" else 0.0
    return memory.peak - away - (memory.weights if offload == "all" else 0.0)


def _offloaded(layout: Layout) -> list[Layout]:
    if layout.pipeline > 1 or layout.zero == 0 or layout.context > 1 or layout.expert > 1:
        return []
    found = [replace(layout, offload="optimizer")]
    return [*found, replace(layout, offload="all")] if layout.zero == 3 else found


def _divisors(number: int, most: int) -> list[int]:
    return [size for size in range(1, min(number, most) + 1) if number % size == 0]
