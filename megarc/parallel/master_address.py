"""Where ranks meet first: rank 0's host and port, as the launcher tells them or as they can be found."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Mapping

from megarc.errors import UserError
from megarc.rank_environment import RankEnvironment, free_port

Address = tuple[str, int]


def address_of(process: RankEnvironment, environment: Mapping[str, str] = os.environ) -> Address | None:
    """Host and port of the first meeting; None for a process alone.

    MASTER_ADDR and MASTER_PORT win, whoever set them. Else srun's step says the
    host, and the job's number makes the port; under mpirun, mpi4py carries rank 0's.

    Raises:
        UserError: where nothing tells it.
    """
    if process.launcher == "python":
        return None
    host, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if host and port:
        return host, _as_port(port)
    if process.launcher == "slurm":
        return (
            host or _reachable(first_host(environment.get("SLURM_STEP_NODELIST", ""))),
            _as_port(port) if port else port_of_job(environment),
        )
    if process.launcher in ("deepspeed", "torchrun"):
        raise UserError("RANK is set but MASTER_ADDR or MASTER_PORT is not; start with deepspeed or torchrun")
    return _given_by_mpi()


def first_host(nodes: str) -> str:
    """The first host of a list as SLURM writes it: ``n[01-03,7]-ib,m2`` begins with n01-ib.

    Raises:
        UserError: where there is none.
    """
    found = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\])?([^\[,]*)", nodes)
    if not found:
        raise UserError(f"SLURM_STEP_NODELIST is {nodes!r}: no host; set MASTER_ADDR and MASTER_PORT")
    return "".join(part or "" for part in found.groups())


def port_of_job(environment: Mapping[str, str]) -> int:
    """A port below the ones that systems hand out, which differs between jobs and steps of one node."""
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return 10_000 + (31 * job + step) % 20_000


def _as_port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise UserError(f"MASTER_PORT is {text!r}; give a free port, such as 29500")
    return int(text)


def _reachable(host: str) -> str:
    """``host``, or the address by which SLURM itself reaches it, where its name means nothing here."""
    try:
        socket.getaddrinfo(host, None)
        return host
    except OSError:
        pass
    try:
        command = ["scontrol", "-o", "show", "node", host]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        shown = ""
    found = re.search(r"NodeAddr=(\S+)", shown)
    if not found:
        raise UserError(f"the first node's name, {host}, cannot be resolved here; set MASTER_ADDR")
    return found[1]


def _given_by_mpi() -> Address:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # RuntimeError: no MPI library
        raise UserError(
            "mpirun does not say where rank 0 is: set MASTER_ADDR and MASTER_PORT for all ranks "
            "(mpirun -genv or -x), or pip install mpi4py"
        ) from None
    return MPI.COMM_WORLD.bcast((_own_address(), free_port()), root=0)


def _own_address() -> str:
    """This host's name where it means an address that others can reach, else that address."""
    name = socket.gethostname()
    try:
        if any(not str(entry[4][0]).startswith(("127.", "::1")) for entry in socket.getaddrinfo(name, None)):
            return name
    except OSError:
        pass
    # Nothing is sent: it asks which interface leads out.
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((outside, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"
