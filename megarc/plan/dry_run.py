"""One rank of any number, built and run with fake tensors and a fake process group.

Shapes, parameters and collectives are those of the real code: the rank's layers
run forward and backward on one micro-batch, nothing is computed or allocated.
What DeepSpeed adds (optimizer state, gradient reduction) comes from the
formulas of ZeRO (Rajbhandari et al. 2020, 1910.02054).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from megarc.errors import UserError
from megarc.model import Tally
from megarc.parallel import Group, Groups, Topology, expert_ranks
from megarc.plan.fake_stage import Counting, Stage, one_block, run_stage
from megarc.plan.memory import state_bytes
from megarc.plan.muon_traffic import muon_traffic
from megarc.train import RunConfig, passes


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
    recomputed_bytes: int  # of one block, while it is computed again
    in_flight: int  # micro-batches whose activations are held at once, by 1F1B
    collectives: list[Collective] = field(default_factory=list)


def dry_run(config: RunConfig, world: int, rank: int) -> DryRun:
    """Rank ``rank`` of ``world``, in this process.

    Args:
        config: with ``model.vocabulary`` given, or resolved.

    Raises:
        UserError: where the topology does not fit, or the vocabulary is unknown.
    """
    if config.model.vocabulary is None:
        raise UserError(
            "a dry run reads no corpora, so it does not know the vocabulary; give model.vocabulary=50257, for instance"
        )
    parallel = config.parallel
    if not 0 <= rank < world:
        raise UserError(f"rank {rank} of {world} ranks: it must lie between 0 and {world - 1}")
    topology = Topology.fit(
        world, tensor=parallel.tensor, pipeline=parallel.pipeline, sequence=parallel.sequence,
        context=parallel.context,
    )  # fmt: skip
    if config.batch.size % topology.data:
        raise UserError(f"batch.size {config.batch.size} is not a multiple of the {topology.data} data ranks")
    share = config.batch.size // topology.data
    micro_batch = config.batch.micro or share
    # Compiled or not, shapes and collectives are the same.
    execution = config.execution.model_copy(update={"compile": False})
    config = config.model_copy(update={"execution": execution})
    with _fake_world(topology, rank, parallel.expert) as groups, FakeTensorMode():
        with Counting() as counting:
            stage = run_stage(config, groups, micro_batch, counting)
        again = one_block(config, groups, micro_batch) if config.execution.recompute != "none" else 0
    micro_batches = share // micro_batch * passes(config)
    place = topology.place(rank)
    width = 2 if config.precision == "bf16" else 4
    names = {tuple(topology.members("context", rank)): "context"}
    names |= (
        {tuple(expert_ranks(topology, rank, parallel.expert).sharing): "expert"}
        if parallel.expert > 1
        else {}
    )
    inside = [
        Collective(name, names.get(ranks, "tensor"), len(ranks), times * micro_batches, elements)
        for (name, ranks, elements), times in counting.counts.items()
    ]

    def held(of: Callable[[float, float], float], from_stage: int) -> float:
        """Bytes of some elements, matrices among them, which ZeRO shares out from a stage on."""
        parts = (stage.parameters - stage.routed, stage.matrices - stage.routed), (stage.routed, stage.routed)
        ranks = topology.replicas, topology.replicas // parallel.expert
        shared = parallel.zero >= from_stage
        return sum(of(*part) / (count if shared else 1) for part, count in zip(parts, ranks, strict=True))

    return DryRun(
        rank=rank,
        topology=topology,
        zero=parallel.zero,
        layers=[layer.name for layer in stage.layers],
        parameters=stage.parameters,
        weight_bytes=held(lambda elements, _: width * elements, 3),
        gradient_bytes=held(lambda elements, _: 4 * elements, 2),
        # masters (beside 16-bit weights only), moments and an average of weights, float32
        optimizer_bytes=held(
            lambda elements, matrices: (
                (4 if width == 2 else 0) * elements + state_bytes(config, elements, matrices)
            ),
            1,
        ),
        activation_bytes=stage.activation_bytes,
        recomputed_bytes=again,
        in_flight=min(topology.pipeline - place["pipeline"], micro_batches),
        collectives=inside
        + _between_stages(topology, place["pipeline"], micro_batches, stage.boundary)
        + _over_replicas(config, topology, stage, micro_batches)
        + _of_routers(config, topology, stage)
        + _of_muon(config, topology, rank),
    )


def _of_routers(config: RunConfig, topology: Topology, stage: Stage) -> list[Collective]:
    """What the routers of a stage counted in a step: of each, a number for each expert, and others."""
    experts = config.model.experts
    if experts is None or topology.replicas == 1:
        return []
    numbers = [int(layer.name.split(".")[1]) for layer in stage.layers if layer.name.startswith("blocks.")]
    routers = sum(experts.at(number) for number in numbers)
    if not routers:
        return []
    group, ranks = _of_replicas(topology)
    return [
        Collective("allreduce of experts' rows", group, ranks, 1, routers * (experts.count + Tally.OTHERS))
    ]


def _of_muon(config: RunConfig, topology: Topology, rank: int) -> list[Collective]:
    """Here the elements are those that this rank sends to others: ranks send unequal numbers."""
    ranks = topology.tensor * topology.replicas
    if config.optimizer.name != "muon" or ranks == 1:
        return []
    return [
        Collective(f"all_to_all of {what}, sent", "stage", ranks, 1, elements)
        for experts, one in zip(("", "experts' "), muon_traffic(config, topology, rank), strict=False)
        for what, elements in ((f"{experts}momenta", one.gathered), (f"{experts}updates", one.returned))
    ]


def _between_stages(topology: Topology, stage: int, micro_batches: int, elements: int) -> list[Collective]:
    neighbours = (stage > 0) + (stage < topology.pipeline - 1)
    if not neighbours:
        return []
    return [Collective("send and receive", "pipeline", 2, 2 * neighbours * micro_batches, elements)]


def _over_replicas(
    config: RunConfig, topology: Topology, stage: Stage, micro_batches: int
) -> list[Collective]:
    """Of gradients and weights; those of experts go over the ranks that hold the same ones."""
    group, ranks = _of_replicas(topology)
    zero, alike = config.parallel.zero, topology.replicas // config.parallel.expert
    dense = _of_zero(zero, group, ranks, stage.parameters - stage.routed, micro_batches)
    return dense + _of_zero(zero, "same experts", alike, stage.routed, micro_batches)


def _of_replicas(topology: Topology) -> tuple[str, int]:
    """The ranks that have the same weights: what their group is called, and how many they are."""
    return "data" if topology.context == 1 else "context x data", topology.replicas


def _of_zero(zero: int, group: str, size: int, parameters: int, micro_batches: int) -> list[Collective]:
    """2, 2, 2, 3 times the parameters with one micro-batch (Rajbhandari et al. 2020, section 7)."""
    if size == 1 or not parameters:
        return []
    if zero == 0:
        return [Collective("allreduce of gradients", group, size, 1, parameters)]
    if zero == 1:
        return [
            Collective("reduce_scatter of gradients", group, size, 1, parameters),
            Collective("allgather of weights", group, size, 1, parameters),
        ]
    gather = Collective(
        "allgather of weights", group, size, 1 if zero == 2 else 2 * micro_batches, parameters
    )
    return [Collective("reduce_scatter of gradients", group, size, micro_batches, parameters), gather]


@contextmanager
def _fake_world(topology: Topology, rank: int, expert: int) -> Iterator[Groups]:
    if dist.is_initialized():
        raise UserError("a dry run takes a process of its own: start it with python, without a launcher")
    sharing, alike = expert_ranks(topology, rank, expert)
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=topology.world)
    try:
        tensor, data, pipeline = (
            _group(topology.members(one, rank), rank) for one in ("tensor", "data", "pipeline")
        )
        context = _group(topology.members("context", rank), rank) if topology.context > 1 else Group(0, 1)
        of_stage = topology.tensor * topology.replicas
        yield Groups(
            Group(rank, topology.world), data, tensor, pipeline, Group(rank % of_stage, of_stage), topology,
            torch.device("cpu"), context, expert=_group(sharing, rank) if expert > 1 else Group(0, 1),
            expert_data=_group(alike, rank) if expert > 1 else data,
        )  # fmt: skip
    finally:
        dist.destroy_process_group()


def _group(ranks: list[int], rank: int) -> Group:
    """The rank's own group; under the fake process group the others need not be made."""
    return Group(ranks.index(rank), len(ranks), dist.new_group(ranks))
