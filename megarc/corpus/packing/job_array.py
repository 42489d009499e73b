"""Which part of a job this process packs: as the user says, or by its rank under srun or mpirun."""

from __future__ import annotations

import os
from collections.abc import Mapping

from megarc.errors import UserError
from megarc.rank_environment import read_rank_environment


def this_part(part: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Part i of n, from ``part``: ``3/8``, ``auto`` (or None), ``mpi`` (asks mpi4py) or ``none``.

    Raises:
        UserError: where ``part`` is none of these, or mpi4py is absent.
    """
    if part == "none":
        return 0, 1
    if part == "mpi":
        return _from_mpi()
    if part in (None, "auto"):
        place = read_rank_environment(environment, local=False)  # packing asks for no device
        return place.rank, place.world
    index, slash, parts = str(part).partition("/")
    if not slash or not index.isdecimal() or not parts.isdecimal() or not int(index) < int(parts):
        raise UserError(f"--part {part}: write i/n, such as 0/8 for the first of eight; or auto, mpi, none")
    return int(index), int(parts)


def _from_mpi() -> tuple[int, int]:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # RuntimeError: no MPI library
        raise UserError("--part mpi needs mpi4py and an MPI: pip install mpi4py mpich") from None
    return MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()
