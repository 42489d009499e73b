"""The roll call at the start: who came, on which host and device, with which code; who differs is named."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import megarc
from megarc.errors import UserError
from megarc.parallel.groups import choose_device
from megarc.parallel.rendezvous import Meeting, describe_hosts, describe_ranks

log = logging.getLogger("megarc")

_PACKAGES = ("torch", "deepspeed", "numpy", "safetensors")
CLOCK_SECONDS = 5.0  # beyond it, times in logs and heartbeats of locks mislead


@dataclass(frozen=True, slots=True)
class Present:
    """A rank that answered. ``same`` must be equal on all ranks."""

    rank: int
    host: str
    process: int
    device: str
    local_rank: int
    same: dict[str, str]
    error: str | None

    @property
    def gpu(self) -> str | None:
        return self.device if self.device.startswith("cuda") else None


def roll_call(meeting: Meeting, device: str, expected: int | None) -> list[Present]:
    """Compares what ranks are before anything starts; all ranks, on rank 0 (elsewhere an empty list).

    Args:
        device: as in ``connect``.
        expected: ranks that the configuration wants; None: any number.

    Raises:
        UserError: on every rank, for ranks that are missing, differ, share a GPU or are too many or few.
    """
    answers = meeting.gather("answers", _own_answer(meeting, device))
    present = [Present(rank, **answer) for rank, answer in enumerate(answers or [])]
    meeting.verdict(_objection(present, expected) if present else None)
    _compare_clocks(meeting, present)
    return present


def differences(gathered: Sequence[Mapping[str, str]]) -> list[str]:
    """For each fact on which ranks (the places in ``gathered``) differ, a line that names them."""
    lines = []
    for name in sorted({name for facts in gathered for name in facts}):
        values = [facts.get(name, "absent") for facts in gathered]
        (common, count), *others = Counter(values).most_common()
        for value, _ in others:
            ranks = [rank for rank, own in enumerate(values) if own == value]
            lines.append(
                f"{name}: rank {describe_ranks(ranks)} has {value}, {count} of {len(gathered)} have {common}"
            )
    return lines


@cache
def code_digest() -> str:
    """Of all our Python files, as they were at the first call; equal code in different places has the same."""
    root = Path(megarc.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _own_answer(meeting: Meeting, device: str) -> dict[str, Any]:
    error, own = None, "none"
    try:
        chosen = choose_device(device, meeting.process)
        own = _named(chosen)
    except UserError as problem:
        error = str(problem)
    same = {name: _version(name) for name in _PACKAGES}
    same |= {"python": platform.python_version(), "megarc's code": code_digest()}
    same |= {"device": own.split(" ")[0]}
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "device": own,
        "local_rank": meeting.process.local_rank,
        "same": same,
        "error": error,
    }


def _named(device: torch.device) -> str:
    if device.type == "cpu":
        return "cpu"
    facts = torch.cuda.get_device_properties(device)
    return f"cuda {getattr(facts, 'uuid', device.index)} {facts.name}"


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _objection(present: Sequence[Present], expected: int | None) -> str | None:
    hosts = describe_hosts([one.host for one in present])
    if expected is not None and expected != len(present):
        return (
            f"{expected} ranks are expected (parallel.world, or tensor x pipeline x data), and {len(present)} "
            f"came: {hosts}; was the hostfile found, do its slots add up? Start {expected}, or change the key"
        )
    for one in present:
        if one.error:
            return f"rank {one.rank} on {one.host}: {one.error}"
    taken: dict[tuple[str, str], int] = {}
    for one in present:
        if one.gpu and (other := taken.setdefault((one.host, one.gpu), one.rank)) != one.rank:
            return (
                f"ranks {other} and {one.rank} are on the same GPU of {one.host} ({one.gpu}); "
                "start one rank a GPU"
            )
    lines = differences([one.same for one in present])
    if lines:
        return (
            "ranks do not run the same thing:\n         "
            + "\n         ".join(lines)
            + f"\n       hosts: {hosts}"
        )
    return None


def _compare_clocks(meeting: Meeting, present: Sequence[Present]) -> None:
    """One rank of each host says what time it is, right after the verdict, when all ranks are awake."""
    process = meeting.process
    asked = [one for one in present if one.rank == 0 or one.local_rank == 0]
    if process.rank > 0 and process.local_rank > 0:
        return
    clocks = meeting.gather("clocks", time.time(), [one.rank for one in asked])
    if not clocks:
        return
    middle = sorted(clocks)[len(clocks) // 2]
    for one, clock in zip(asked, clocks, strict=True):
        if abs(clock - middle) > CLOCK_SECONDS:
            log.warning(
                f"the clock of {one.host} (rank {one.rank}) is {clock - middle:+.0f} s off the others'; "
                "set it: times in logs and locks mislead"
            )
