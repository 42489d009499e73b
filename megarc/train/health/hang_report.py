"""What a hang looks like from each rank, and who is to blame."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from megarc.atomic_write import written_atomically
from megarc.parallel import describe_ranks
from megarc.train.heartbeat import Heartbeat

_COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/")
_FRAMES = 14


@dataclass(frozen=True, slots=True)
class Sight:
    """One rank as it was: where it stood, for how long, whether it waited for others, its threads' stacks."""

    rank: int
    host: str
    process: int
    step: int
    phase: str
    count: int  # of phases entered
    seconds: float  # in this phase
    waits: bool  # in a collective
    stacks: dict[str, list[str]]


def look(rank: int, heartbeat: Heartbeat) -> Sight:
    """This process now."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = {names.get(number, "?"): frame for number, frame in sys._current_frames().items()}
    stacks = {
        name: [line.rstrip() for line in traceback.format_stack(frame)[-_FRAMES:]]
        for name, frame in frames.items()
        if name != threading.current_thread().name and not name.startswith(("watchdog", "heartbeat"))
    }
    waits = any(place in line for stack in stacks.values() for line in stack for place in _COLLECTIVES)
    seconds = time.monotonic() - heartbeat.since
    host = socket.gethostname()
    return Sight(
        rank, host, os.getpid(), heartbeat.step, heartbeat.phase, heartbeat.count, seconds, waits, stacks
    )


def write_sight(sight: Sight, folder: Path) -> None:
    """``hang-00003.json``."""
    with written_atomically(folder / f"hang-{sight.rank:05d}.json") as file:
        file.write(orjson.dumps(asdict(sight), option=orjson.OPT_INDENT_2))


def read_sights(folder: Path, world: int) -> list[Sight | None]:
    """Each rank's; None where it wrote nothing."""
    found: list[Sight | None] = []
    for rank in range(world):
        try:
            found.append(Sight(**orjson.loads((folder / f"hang-{rank:05d}.json").read_bytes())))
        except (OSError, ValueError, TypeError):
            found.append(None)
    return found


def culprits(sights: Sequence[Sight | None]) -> tuple[list[int], str]:
    """The ranks that the others wait for, and why we think so; none where nobody stands out."""
    silent = [rank for rank, sight in enumerate(sights) if sight is None]
    if silent:
        return silent, "wrote nothing: frozen, killed, cut off, or stuck in code that holds Python's lock"
    seen = [sight for sight in sights if sight is not None]
    busy = [sight.rank for sight in seen if not sight.waits]
    if 0 < len(busy) < len(seen):
        return busy, "not in a collective, while the others wait in one"
    last = max((sight.step, sight.count) for sight in seen)
    behind = [sight.rank for sight in seen if (sight.step, sight.count) < last]
    if behind and not busy and len({sight.host for sight in seen}) > 1:
        where = f"all wait in collectives, rank {describe_ranks(behind)} in an earlier one"
        return [], f"no rank stands out: {where}; a link between hosts may be cut"
    if behind:
        return behind, "behind the others"
    if len(seen) == 1:
        return [0], "alone"
    if busy:
        return [], "no rank stands out: all are in the same phase, none in a collective"
    return [], "no rank stands out: all wait in the same collective; a link between hosts may be cut"


def report(sights: Sequence[Sight | None], patience: float) -> str:
    """For people: who, where everybody stood, and the stacks that tell."""
    blamed, why = culprits(sights)
    if blamed:
        lines = [
            f"hang: rank {describe_ranks(blamed)} {'is' if len(blamed) == 1 else 'are'} to blame ({why})"
        ]
    else:
        lines = [f"hang: {why}"]
    lines.append(f"nothing moved for {patience:g} s (health.patience)")
    lines += ["", *_places(sights), ""]
    shown = blamed[:4] or [0]
    waiting = [
        sight.rank for sight in sights if sight is not None and sight.waits and sight.rank not in shown
    ]
    for rank in [*shown, *waiting[:1]]:
        sight = sights[rank]
        if sight is None:
            continue
        lines.append(f"rank {rank} on {sight.host}, process {sight.process}, in '{sight.phase}':")
        for name, stack in sight.stacks.items():
            lines += [f"  thread {name}", *(f"  {line}" for entry in stack for line in entry.splitlines())]
    lines.append("every rank's stacks lie beside this file, in hang-*.json")
    return "\n".join(lines) + "\n"


def _places(sights: Sequence[Sight | None]) -> list[str]:
    """A line for each place where ranks stood, with the ranks."""
    places: dict[str, list[int]] = {}
    for rank, sight in enumerate(sights):
        where = "wrote nothing"
        if sight is not None:
            waits = ", in a collective" if sight.waits else ""
            where = f"step {sight.step}, {sight.phase} for {sight.seconds:.0f} s{waits} ({sight.host})"
        places.setdefault(where, []).append(rank)
    return [f"  rank {describe_ranks(ranks)}: {where}" for where, ranks in places.items()]
