"""What data ranks send and update in a step, by ZeRO stage, as DeepSpeed 0.19.8 does it."""

from __future__ import annotations

from dataclasses import dataclass

from megarc.model import cost_of
from megarc.parallel import Topology
from megarc.plan.links import Collective
from megarc.plan.memory import routed_elements
from megarc.train import RunConfig

_ADAM = 38
"""Bytes an element: gradient, master and both moments read, the last three written (28), the norm's look at the
gradient (4), the master read again and the 16-bit weight written (6)."""
_COPIES = 40
"""Bytes an element of stages 1 to 3, once a step: gradients into the bucket, averaged, out of it, into the flat
buffer of the update, weights back; each reads and writes."""
_BUCKETS = 24
"""Bytes an element of stage 0, over several data ranks: float32 gradients into one new tensor, divided, out of it."""
_AVERAGE = 12  # bytes an element: master and average read, the average written
_SUM = 10  # bytes an element, to add a 16-bit gradient to a float32 sum
_BESIDE: dict[int, tuple[Collective, ...]] = {
    0: (),
    1: (),
    2: ("scatter",),
    3: ("gather", "gather", "scatter"),
}
_AFTER: dict[int, tuple[Collective, ...]] = {0: ("reduce",), 1: ("reduce", "gather"), 2: ("gather",), 3: ()}
Sent = tuple[Collective, float, bool]
"""What, bytes, and whether it goes over the ranks that hold the same experts, not over all data ranks."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Of one rank.

    Attributes:
        elements: of the rank's layers; ``own`` of them it updates.
        beside: collectives over data ranks of each micro-batch, beside its blocks.
        after: those after the last.
        update_bytes: that the update reads and writes on the device; ``copied_bytes``: that gradients and weights
            take on their way to it and back.
        summed_bytes: that each micro-batch's gradients take to be added to the sum.
        flattened: bytes of one tensor of all gradients.
        host_bytes: between device and host; ``host_update_bytes``: of the update, where it runs there.
    """

    elements: float
    own: float
    beside: list[Sent]
    after: list[Sent]
    update_bytes: float
    copied_bytes: float
    summed_bytes: float
    host_bytes: float
    host_update_bytes: float
    explained: str
    flattened: float

    @classmethod
    def of(cls, config: RunConfig, topology: Topology) -> Shares:
        """Of a rank of the largest stage, whose layers are a p-th of the model's."""
        parallel, width = config.parallel, 2 if config.precision == "bf16" else 4
        parameters = cost_of(config.model, config.window.build()).parameters
        expert, parts = parallel.expert, topology.tensor * topology.pipeline
        routed = routed_elements(config.model, range(config.model.layers)) / parts if expert > 1 else 0.0
        dense, experts = parameters / parts - routed, routed / expert
        n = dense + experts
        zero, several = parallel.zero, config.batch.size > topology.data * config.batch.micro_batch
        own = (dense + routed) / topology.replicas if zero else n
        beside, after = _BESIDE[zero], _AFTER[zero]
        groups = [(dense, False)] + ([(experts, True)] if expert > 1 else [])
        size = 4 if zero == 0 else width
        words = {0: "reduce 4N", 1: f"reduce {width}N, gather {width}N", 2: f"scatter {width}N a micro-batch, "
                 f"gather {width}N", 3: f"gather {width}N twice and scatter {width}N a micro-batch"}[zero]  # fmt: skip
        wide = width == 2
        # Stages 2 and 3 add up their own share alone.
        summed = _SUM * (own if zero >= 2 else n) if several or (zero == 1 and wide) else 0.0
        update = (_ADAM if wide else _ADAM - 6) * own
        flattened = n if zero == 0 and topology.replicas > 1 else 0.0
        copied = _COPIES * (n if zero in (1, 2) else own) if zero else _BUCKETS * flattened
        copied += _AVERAGE * own if config.average.on else 0
        on_host = parallel.offload != "none"
        # Gradients go to the host and weights come back; offloaded, weights come twice a micro-batch as well.
        host = (4 + width) * own if on_host else 0.0
        if parallel.offload == "all":
            host += 2 * width * own * config.batch.size / (topology.data * config.batch.micro_batch)

        def sent(names: tuple[Collective, ...]) -> list[Sent]:
            return [(what, size * elements, alike) for elements, alike in groups for what in names]

        return cls(
            n, own, sent(beside), sent(after),
            0.0 if on_host else update, copied, summed, host, update if on_host else 0.0,
            f"N = {n / 1e6:.1f}M elements, {words}",
            4 * flattened,
        )  # fmt: skip
