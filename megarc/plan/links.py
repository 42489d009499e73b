"""How long ranks talk: the alpha-beta model of collectives, over the links that a group has.

A message of S bytes over a link takes ``alpha + S / B``. Rings and trees of n ranks (Thakur et al. 2005; as NCCL has
them), S the whole tensor:

    all-reduce          ring  2(n-1) alpha + 2(n-1)/n S/B        tree  2 log2(n) alpha + 2 S/B
    gather, scatter     ring   (n-1) alpha +  (n-1)/n S/B

A group inside a node uses the links inside. A group with k ranks in each of several nodes has k adapters a node, so
that its ring runs at the lesser of k adapters and of the links inside.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from megarc.parallel import Topology
from megarc.plan.device import DeviceConfig

Collective = Literal["reduce", "gather", "scatter"]
REACHED = 0.8
"""Of a link's bandwidth, by long messages: NCCL's tests on NVLink and InfiniBand reach 0.75 to 0.95."""


class Link(NamedTuple):
    """What a group talks over: bytes a second, seconds a message, and its ranks."""

    bandwidth: float
    latency: float
    ranks: int

    def seconds(self, what: Collective, moved: float) -> float:
        """Of a collective over the group, of a tensor of ``moved`` bytes."""
        n = self.ranks
        if n == 1 or moved <= 0:
            return 0.0
        if what != "reduce":
            return (n - 1) * self.latency + (n - 1) / n * moved / self.bandwidth
        ring = 2 * (n - 1) * self.latency + 2 * (n - 1) / n * moved / self.bandwidth
        tree = 2 * math.log2(n) * self.latency + 2 * moved / self.bandwidth
        return min(ring, tree)

    def exchange(self, moved: float) -> float:
        """All to all, pairwise: each rank sends ``moved`` bytes to the others together."""
        return 0.0 if self.ranks == 1 else (self.ranks - 1) * self.latency + moved / self.bandwidth

    def send(self, moved: float) -> float:
        """From one rank to its neighbour."""
        return self.latency + moved / self.bandwidth


class Links(NamedTuple):
    """Those of one rank's groups. ``data`` is of all ranks that hold the same weights, context and data ranks."""

    tensor: Link
    data: Link
    pipeline: Link
    stage: Link
    """All tensor, context and data ranks of a stage, that exchange pairwise: each by its own adapter, where they span
    nodes."""

    context: Link
    expert: Link
    """Those that share experts, of whom each sends to each."""
    alike: Link
    """Those that hold the same experts."""

    @classmethod
    def of(cls, topology: Topology, device: DeviceConfig, expert: int = 1) -> Links:
        """Ranks stand as ``Topology`` has them, nodes filled one after the other."""
        tensor = _link(device, topology.tensor, 1)
        data = _link(device, topology.replicas, topology.tensor)
        of_stage = topology.tensor * topology.replicas
        pipeline = _link(device, topology.pipeline, of_stage)
        context = _link(device, topology.context, topology.tensor)
        apart = topology.tensor * topology.context
        experts = _pairwise(device, expert, apart)
        alike = _link(device, topology.replicas // expert, topology.tensor * expert)
        return cls(tensor, data, pipeline, _pairwise(device, of_stage), context, experts, alike)


def _pairwise(device: DeviceConfig, ranks: int, apart: int = 1) -> Link:
    link, rate = _link(device, ranks, apart), 1.0 if device.kind == "cpu" else REACHED
    beyond = ranks * apart > device.node and ranks > 1
    return link._replace(bandwidth=min(link.bandwidth, device.between.bandwidth * rate)) if beyond else link


def _link(device: DeviceConfig, ranks: int, apart: int) -> Link:
    """Of a group of ``ranks``, each ``apart`` from the next."""
    inside, between, rate = device.inside, device.between, 1.0 if device.kind == "cpu" else REACHED
    if ranks * apart <= device.node or ranks == 1:
        return Link(inside.bandwidth * rate, inside.latency, ranks)
    in_a_node = max(1, device.node // apart)
    bandwidth = min(inside.bandwidth, in_a_node * between.bandwidth) if in_a_node > 1 else between.bandwidth
    return Link(bandwidth * rate, between.latency, ranks)
