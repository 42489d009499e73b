"""How long Muon takes: the products of Newton-Schulz, each matrix whole on one rank of its stage, and the exchange.

Parts of momenta go to the matrix's owner and updates come back, float32 (docs/optimizers.md; ``muon_traffic`` counts
them rank by rank, exactly). Of a stage with M elements in matrices, t tensor and d data ranks, R = td, a rank sends on
the average

    ZeRO 0        M/R (1 - 1/t) of momenta, since each data rank has all of its shard, and M/t (1 - 1/R) of updates
    ZeRO 3        M/R (1 - 1/R) of each, at most: a matrix is spread over all
    ZeRO 1, 2     M/R (1 - h/t) of each; h of a shard of a elements lies with its owner, whose range has L = M/R: a cut
                  falls into it with chance a/L and leaves 3/4 to the larger part, so h = 1 - a/4L; L/a where a > L

Experts that e data ranks share out travel by themselves, with 1/e - 1/R in place of 1 - 1/R of updates (ZeRO 0): a
matrix lies on an e-th of the data ranks.
"""

from __future__ import annotations

from typing import NamedTuple

from megarc.parallel import Group, TensorParallel, Topology
from megarc.plan.block_matrices import block_matrices
from megarc.plan.device import DeviceConfig
from megarc.plan.memory import stages_of
from megarc.train import RunConfig, matrices_of


class Shape(NamedTuple):
    """Shorter and longer side of a matrix; whether it is of an expert that data ranks share out."""

    shorter: int
    longer: int
    shared_out: bool = False

    @property
    def elements(self) -> int:
        return self.shorter * self.longer


def muon_matrices(config: RunConfig) -> list[Shape]:
    """Of each matrix of all blocks that Muon updates; none where AdamW does."""
    if config.optimizer.name != "muon":
        return []
    model = config.model
    place = TensorParallel(expert=Group(0, config.parallel.expert))
    kinds = {
        kind: [
            Shape(min(one.rows, one.columns), max(one.rows, one.columns), one.experts > 1)
            for name, record in records.items()
            for one in matrices_of(name, record)
        ]
        for kind, records in block_matrices(model, config.execution, place).items()
    }
    return [shape for layer in range(model.layers) for shape in kinds[model.kind(layer)]]


def muon_exchanged(matrices: list[Shape], config: RunConfig, topology: Topology) -> tuple[float, float]:
    """Elements that a rank sends in a step, on the average: parts of momenta, and updates."""
    parts = [
        _exchanged([one for one in matrices if one.shared_out == shared_out], config, topology, expert)
        for shared_out, expert in ((False, 1), (True, config.parallel.expert))
    ]
    return sum(momenta for momenta, _ in parts), sum(updates for _, updates in parts)


def _exchanged(
    matrices: list[Shape], config: RunConfig, topology: Topology, expert: int
) -> tuple[float, float]:
    """Of matrices that an ``expert``-th of the data ranks holds."""
    blocks = max(stage.blocks for stage in stages_of(config.model, topology.pipeline))
    whole = blocks / config.model.layers * sum(one.elements for one in matrices)
    if not whole:
        return 0.0, 0.0
    t, ranks = topology.tensor, topology.tensor * topology.replicas
    if config.parallel.zero == 0:
        return whole / ranks * (1 - 1 / t), whole / t * (1 / expert - 1 / ranks)
    own = whole / ranks
    if topology.replicas == expert:
        return own * (1 - 1 / t), own * (1 - 1 / t)
    if config.parallel.zero == 3:
        return own * (1 - 1 / ranks), own * (1 - 1 / ranks)
    held = sum(one.elements * _held(one.elements / t, own) for one in matrices)
    sent = own * (1 - held / sum(one.elements for one in matrices) / t)
    return sent, sent


def _held(elements: float, own: float) -> float:
    """Of a shard of so many elements, what lies in the range of the rank that has the most of it."""
    return 1 - elements / (4 * own) if elements <= own else min(0.75, own / elements)


def muon_seconds(matrices: list[Shape], config: RunConfig, topology: Topology, device: DeviceConfig) -> float:
    """Of a step. An iteration of a matrix [r, c] has products of 2r²c, 2r³ and 2r²c FLOPs.

    The tensor and data ranks of a stage share its matrices out evenly; the largest one stays whole.
    """
    if not matrices:
        return 0.0
    precision = config.optimizer.muon.precision
    width = 2 if precision == "bf16" or (precision == "auto" and device.kind == "cuda") else 4

    def seconds(shape: Shape) -> float:
        r, c, _ = shape
        wide = device.product_seconds(1, r, r, c, width, width * (2 * r * c + r * r))
        square = device.product_seconds(1, r, r, r, width, width * 4 * r * r)
        back = device.product_seconds(1, r, c, r, width, width * (3 * r * c + r * r))
        return config.optimizer.muon.iterations * (wide + square + back)

    times = {shape: seconds(shape) for shape in set(matrices)}
    blocks = max(stage.blocks for stage in stages_of(config.model, topology.pipeline))
    of_stage = sum(times[shape] for shape in matrices) * blocks / config.model.layers
    return max(of_stage / (topology.tensor * topology.replicas), *times.values())
