"""Where a process stands among its fellows on this host and others; all that reads a launcher's environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from megarc.errors import UserError


@dataclass(frozen=True, slots=True)
class RankEnvironment:
    """Rank ``rank`` of ``world``, the ``local_rank``-th on its host."""

    rank: int
    world: int
    local_rank: int
    launcher: str


ALONE = RankEnvironment(rank=0, world=1, local_rank=0, launcher="python")

# (launcher, rank, world, local rank): the names under which each tells them. The first that is there counts, so a
# launcher that was itself started by another comes before it: deepspeed and torchrun before mpirun, mpirun before
# srun (which starts mpirun's helpers inside a job). Of SLURM only what srun sets for a step: a batch script has
# SLURM_NTASKS too, and is not one of several.
_LAUNCHERS = (
    ("torch", "RANK", "WORLD_SIZE", ("LOCAL_RANK",)),
    ("openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    ("mvapich", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", ("MV2_COMM_WORLD_LOCAL_RANK",)),
    ("mpich", "PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID")),
    ("slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",)),
)

_LOCAL_SIZES = (
    *("LOCAL_WORLD_SIZE", "LOCAL_SIZE"),  # torchrun, deepspeed
    *("OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"),
)


def read_rank_environment(
    environment: Mapping[str, str] = os.environ, *, local: bool = True
) -> RankEnvironment:
    """The place that deepspeed, torchrun, mpirun or srun gave this process; alone without any.

    Args:
        local: whether the rank on this host is wanted. Where not, it is 0 if no launcher names it: a pod
            that is one of several knows its RANK and WORLD_SIZE alone.

    Raises:
        UserError: where the environment is half set or contradicts itself.
    """
    for launcher, rank_name, world_name, local_names in _LAUNCHERS:
        if launcher == "torch" and not {rank_name, world_name} & set(environment):
            continue
        if launcher != "torch" and not {rank_name, world_name} <= set(environment):
            continue
        rank, world = _number(environment, rank_name), _number(environment, world_name)
        if not 0 <= rank < world:
            raise UserError(
                f"the environment says rank {rank} of {world} ({rank_name}, {world_name}); that is impossible"
            )
        local_name = next((name for name in local_names if name in environment), local_names[0])
        local_rank = _number(environment, local_name) if local or local_name in environment else 0
        return RankEnvironment(rank, world, local_rank, _named(launcher, environment))
    return ALONE


def on_one_host(place: RankEnvironment, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher says that all ranks are on this host; not where it says nothing."""
    counts = [environment[name] for name in _LOCAL_SIZES if name in environment]
    return str(place.world) in counts[:1] or (not counts and environment.get("SLURM_STEP_NUM_NODES") == "1")


def free_port() -> int:
    """A port that nobody on this host listens on now, for a launcher or a store."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _named(launcher: str, environment: Mapping[str, str]) -> str:
    if launcher != "torch":
        return launcher
    return "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "deepspeed"


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UserError(
            f"the environment's {name} is {text!r}, not a number; start with deepspeed, torchrun, mpirun or srun"
        )
    return int(text)
