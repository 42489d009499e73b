"""What chaos.py does to the machine around a run: cables that are cut or slow, a disk that can no longer be written.

Ranks live in network namespaces of their own, those of tests/system/hosts.py, joined by a bridge; the run folder is
mounted over itself without the right to write. Both need root, and happen in a mount namespace of the campaign.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from system.hosts import NETWORK, Hosts, absent  # noqa: E402

from megarc.errors import UserError  # noqa: E402

# CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWUTS of sched.h
_NEW_MOUNTS, _NEW_NETWORK, _NEW_NAMES = 0x00020000, 0x40000000, 0x04000000


def cannot() -> str:
    """Why there are no cables and mounts here; "": there are."""
    return absent()


@dataclass
class Around:
    """Strikes once, as soon as the run in ``folder`` trains and has done ``step`` steps."""

    folder: Path
    step: int
    strike: Callable[[], None]
    hosts: Hosts | None = None  # ranks live on these, in turn; None: on this machine
    struck: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = _written(self.folder / "state.json")
        if self.hosts is not None:
            self.environment = {"MASTER_ADDR": f"{NETWORK}.1", "GLOO_SOCKET_IFNAME": "eth0"}

    def enter(self, rank: int) -> None:
        """This process, and threads that it starts from now on, see the network and name of the rank's host alone.

        The first host has this machine's name: the lock of a run that ended there is that of a process of its own.
        """
        if self.hosts is not None:
            number = rank % len(self.hosts.names)
            with Path("/run/netns", f"{self.hosts.tag}-{number + 1}").open() as space:
                _call("setns", space.fileno(), _NEW_NETWORK)
            if number:
                _call("unshare", _NEW_NAMES)
                socket.sethostname(self.hosts.names[number])

    def look(self) -> None:
        if self.struck or _written(self.folder / "state.json") == self._before:
            return  # lines of metrics are those of an earlier start
        if steps_done(self.folder) >= self.step:
            self.struck = True
            self.strike()


def _written(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def steps_done(folder: Path) -> int:
    """The step of the last whole line of metrics."""
    try:
        lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")
    except FileNotFoundError:
        return 0
    return orjson.loads(lines[-2])["step"] if len(lines) > 1 else 0


def own_mounts() -> None:
    """What is mounted from now on is seen by this process and its children alone."""
    _call("unshare", _NEW_MOUNTS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[Callable[[], None]]:
    """Gives what makes ``folder`` read-only; afterwards it can be written again."""
    mounted = []

    def act() -> None:
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        mounted.append(folder)
        end = time.monotonic() + 10
        while subprocess.run(["mount", "-o", "remount,bind,ro", folder], capture_output=True).returncode:
            if time.monotonic() > end:
                raise UserError(
                    f"{folder} could not be made read-only: some file in it was always being written"
                )
            time.sleep(0.02)  # busy: a file of it is open for writing

    try:
        yield act
    finally:
        for one in mounted:
            subprocess.run(["umount", "--lazy", one], check=True)


def _call(name: str, *numbers: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*numbers):
        problem = ctypes.get_errno()
        raise OSError(problem, f"{name}: {os.strerror(problem)}")
