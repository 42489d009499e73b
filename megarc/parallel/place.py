"""Where a process stands among its fellows: the one place that reads a launcher's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from megarc.errors import UserError


@dataclass(frozen=True, slots=True)
class Place:
    """Rank ``rank`` of ``world``, the ``local_rank``-th on its host; ``master`` is host:port or None."""

    rank: int
    world: int
    local_rank: int
    master: str | None
    launcher: str


def place_from_environment(environment: Mapping[str, str] = os.environ) -> Place:
    """The place that ``deepspeed`` or ``torchrun`` gave this process; alone without either.

    Raises:
        UserError: where the environment is half set or contradicts itself.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return Place(rank=0, world=1, local_rank=0, master=None, launcher="python")
    numbers = {name: _number(environment, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    rank, world = numbers["RANK"], numbers["WORLD_SIZE"]
    if not 0 <= rank < world:
        raise UserError(f"the environment says rank {rank} of {world} (RANK, WORLD_SIZE); it cannot be")
    host, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if not host or not port:
        raise UserError("RANK is set but MASTER_ADDR or MASTER_PORT is not; start with deepspeed or torchrun")
    launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "deepspeed"
    return Place(rank, world, numbers["LOCAL_RANK"], f"{host}:{port}", launcher)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdigit():
        raise UserError(
            f"the environment's {name} is {text!r}, not a number; start with deepspeed or torchrun"
        )
    return int(text)
