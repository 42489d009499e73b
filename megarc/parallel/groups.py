"""The groups that ranks form, as one small object that is passed to who needs it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from megarc.errors import UserError
from megarc.parallel.rendezvous import Meeting
from megarc.parallel.topology import Dimension, Topology
from megarc.rank_environment import RankEnvironment

_SECONDS_TO_LET_GO = 0.2


@dataclass(frozen=True, slots=True)
class Group:
    """``rank`` of ``size``; ``handle`` is torch's process group (None: the group of all)."""

    rank: int
    size: int
    handle: dist.ProcessGroup | None = None


@dataclass(frozen=True, slots=True)
class Groups:
    """This process among all (``world``), its fellows in each parallel dimension, and its pipeline ``stage``.

    Attributes:
        data: ranks that read different samples.
        context: ranks that share the rows of a sample.
        replicated: ranks that hold the same weights, where these are more than ``data``; see ``replicas``.
        expert, expert_data: of the data ranks, those that share experts out, and those that hold the same ones.
    """

    world: Group
    data: Group
    tensor: Group
    pipeline: Group
    stage: Group
    topology: Topology
    device: torch.device
    context: Group = Group(0, 1)
    replicated: Group | None = None
    expert: Group = Group(0, 1)
    expert_data: Group = Group(0, 1)

    @property
    def replicas(self) -> Group:
        """Ranks that hold the same weights, or share them out by ZeRO: this rank's context and data ranks.

        It is what DeepSpeed calls the data parallel group.
        """
        return self.data if self.replicated is None else self.replicated

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the one that speaks."""
        return self.world.rank == 0


def connect(
    meeting: Meeting,
    device: str = "auto",
    *,
    tensor: int = 1,
    pipeline: int = 1,
    sequence: bool = False,
    context: int = 1,
    expert: int = 1,
    timeout: timedelta = timedelta(minutes=10),
) -> Groups:
    """Joins the process group (gloo on CPU, NCCL on CUDA) and returns the groups.

    Args:
        meeting: where all ranks met.
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.
        tensor, pipeline, sequence, context: as in ``Topology``; the other ranks are data parallel.
        expert: data ranks, one after the other, that share experts out.
        timeout: after which a collective that does not finish raises.

    Raises:
        UserError: where CUDA is asked for and absent, there are more ranks than
            GPUs, or the ranks cannot be laid out so.
    """
    process = meeting.process
    topology = Topology.fit(
        process.world, tensor=tensor, pipeline=pipeline, sequence=sequence, context=context
    )
    chosen = choose_device(device, process)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        store = dist.PrefixStore("group", meeting.store)
        dist.init_process_group(
            backend, store=store, rank=process.rank, world_size=process.world, timeout=timeout
        )
    everyone = Group(process.rank, process.world)
    dimensions: tuple[Dimension, ...] = ("data", "tensor", "pipeline")
    own = {one: _group(topology.members(one, process.rank), everyone) for one in dimensions}
    alone = Group(0, 1)
    shared = alone if context == 1 else _group(topology.members("context", process.rank), everyone)
    replicas = _replicas(topology, everyone, own["data"], shared)
    fellows, alike = expert_ranks(topology, process.rank, expert)
    return Groups(
        world=everyone,
        data=own["data"],
        tensor=own["tensor"],
        pipeline=own["pipeline"],
        stage=_stage(topology, everyone, replicas, own["tensor"]),
        topology=topology,
        device=chosen,
        context=shared,
        replicated=replicas,
        expert=_group(fellows, everyone) if expert > 1 else Group(0, 1),
        expert_data=_group(alike, everyone) if expert > 1 else own["data"],
    )


class ExpertRanks(NamedTuple):
    """Of the data ranks of one rank: those that share experts out with it, and those that hold the same ones."""

    sharing: list[int]
    alike: list[int]


def expert_ranks(topology: Topology, rank: int, expert: int) -> ExpertRanks:
    """
    Raises:
        UserError: where so many do not divide the data ranks.
    """
    data = topology.members("data", rank)
    if len(data) % expert:
        divisors = [str(one) for one in range(1, len(data) + 1) if len(data) % one == 0]
        raise UserError(
            f"parallel.expert {expert} does not divide the {len(data)} data ranks; use {', '.join(divisors)}"
        )
    place = data.index(rank)
    return ExpertRanks(data[place // expert * expert :][:expert], data[place % expert :: expert])


def _replicas(topology: Topology, everyone: Group, data: Group, context: Group) -> Group:
    """The context and data ranks of this rank: where one of them is 1, the other's group."""
    if topology.context == 1:
        return data
    return context if topology.data == 1 else _group(topology.same_weights(everyone.rank), everyone)


def _stage(topology: Topology, everyone: Group, replicas: Group, tensor: Group) -> Group:
    """The tensor, context and data ranks of this rank's pipeline stage: where one part is 1, the other's group."""
    if topology.tensor == 1:
        return replicas
    return tensor if topology.replicas == 1 else _group(topology.stage(everyone.rank), everyone)


def _group(mine: list[int], everyone: Group) -> Group:
    """This rank's group, of the ranks ``mine``.

    Only its members make it: if all ranks made all groups, as torch has it by
    default, 1,024 ranks would wait for each other some hundreds of times.
    """
    if len(mine) == everyone.size:
        return everyone
    return Group(mine.index(everyone.rank), len(mine), dist.new_group(mine, use_local_synchronization=True))


def disconnect() -> None:
    """Leaves the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
        # gloo's threads let go of the last collective's tensors a moment later, and abort the process
        # (torch 2.13, one exit in ten) where the interpreter is ending by then.
        time.sleep(_SECONDS_TO_LET_GO)


def choose_device(name: str, process: RankEnvironment) -> torch.device:
    """The device of this process: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.

    Raises:
        UserError: where CUDA is asked for and absent, or there are more ranks than GPUs.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("device is cuda, but torch sees no GPU here; use device=cpu or device=auto")
    count = torch.cuda.device_count()
    if count == 1 and process.launcher == "slurm":
        return torch.device("cuda", 0)  # srun may show each rank its own GPU alone; doubles are found later
    if process.local_rank >= count:
        raise UserError(
            f"local rank {process.local_rank} has no GPU: this host shows {count}; start at most {count} here"
        )
    return torch.device("cuda", process.local_rank)
