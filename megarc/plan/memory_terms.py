"""The closed forms of a rank's memory with their numbers in, for ``--explain``; ``memory.py`` has the forms."""

from __future__ import annotations

from megarc.plan.device import DeviceConfig
from megarc.plan.search import Plan
from megarc.train import RunConfig

_GIB = 2**30


def memory_terms(config: RunConfig, plan: Plan, device: DeviceConfig) -> list[str]:
    """A line for each form, with the numbers of the fullest rank of ``plan``, which is a plan of ``config``."""
    replicas, memory = plan.layout.topology.replicas, plan.memory
    config = plan.layout.config(config).shared_among(replicas)
    zero, width = config.parallel.zero, 2 if config.precision == "bf16" else 4
    weights = memory.weights / width
    own = memory.masters / 4 if zero else weights
    elements = own * replicas if zero == 3 else weights
    beside = memory.step - memory.activations
    return [
        f"memory: N = {elements / 1e6:.1f}M elements of the fullest rank; it updates P = {own / 1e6:.1f}M of them "
        f"(ZeRO {zero}, {replicas} {'context x data' if plan.layout.context > 1 else 'data'} ranks)",
        f"weights {width}{'P' if zero == 3 else 'N'} = {memory.weights / _GIB:.2f} GiB"
        + (f", masters 4P = {memory.masters / _GIB:.2f} GiB" if memory.masters else "")
        + f", moments {memory.moments / own:.3g}P = {memory.moments / _GIB:.2f} GiB"
        + _buffers(zero, memory.buffers),
        f"a step at its most {memory.step / _GIB:.2f} GiB = activations {memory.activations / _GIB:.2f} GiB + "
        f"{beside / _GIB:.2f} GiB of gradients, buckets, and what the head or a block has for itself",
        f"driver and communication: {device.reserved_gib:.2f} GiB",
    ]


def _buffers(zero: int, buffers: float) -> str:
    form = "4P, a bucket and parameters that are never let go" if zero == 3 else "4N, float32 sums"
    return f", buffers {buffers / _GIB:.2f} GiB ({form})" if buffers else ""
