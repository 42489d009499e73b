"""Faults on purpose, for tests and campaigns: ``MEGARC_FAULTS`` in the environment, a list in JSON.

    [{"do": "kill", "at": "backward", "step": 7, "rank": 1}]

``at`` is a phase or a point of ``Heartbeat``: waiting for data, reading, weighing, forward, backward, pipeline, update,
observing, saving, writing, renaming, publishing, removing. ``step`` counts from 1; without it, every step. ``rank`` is
required. ``do`` is one of

    kill, freeze      SIGKILL or SIGSTOP to the process itself, ``seconds`` (0) later
    signal            the signal ``name`` to itself
    hang              the thread never comes back
    slow              it sleeps for ``seconds``
    nan, spike        the rank's loss becomes nan, or very high
    nan gradient      one of its gradients becomes nan
    wrong gradient    one of its gradients becomes a little wrong, once
    flip              a weight changes
    full disk         files cannot grow beyond 50 kB any more, until ``disk again``
    remove            the folder ``name`` goes
    clock             this process's clock jumps by ``seconds``

``MEGARC_SAMPLES`` names a folder: each rank writes there which samples it took, a line a step.

Without these variables nothing of this file runs.
"""

from __future__ import annotations

import math
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import orjson
import torch

from megarc.config import Config, build, key
from megarc.train.engine import Engine

VARIABLE = "MEGARC_FAULTS"
RECORD = "MEGARC_SAMPLES"
_FOREVER = 1e6


class Fault(Config):
    """One of the list above."""

    do: Literal[
        "kill",
        "freeze",
        "signal",
        "hang",
        "slow",
        "nan",
        "spike",
        "nan gradient",
        "wrong gradient",
        "flip",
        "full disk",
        "disk again",
        "remove",
        "clock",
    ] = key(..., "what happens")
    at: str = key(..., "phase or point")
    rank: int = key(..., "of the world")
    step: int | None = key(None, "counted from 1; null: every step")
    seconds: float = key(0.0, "later, or how long")
    name: str = key("SIGTERM", "of a signal, of a folder")


class _Listed(Config):
    faults: list[Fault] = key([], "all of them")


def arm(engine: Engine) -> None:
    """Lets the faults of the environment happen to this rank."""
    if folder := os.environ.get(RECORD):
        engine.heartbeat.listeners.append(_recorder(engine, Path(folder)))
    text = os.environ.get(VARIABLE)
    if not text:
        return
    listed = build(_Listed, {"faults": orjson.loads(text)}, VARIABLE).faults
    mine = [fault for fault in listed if fault.rank == engine.groups.world.rank]
    fired: set[int] = set()

    def listener(point: str) -> None:
        for number, fault in enumerate(mine):
            if fault.at != point or number in fired or fault.step not in (None, engine.heartbeat.step):
                continue
            if fault.step is not None:
                fired.add(number)
            _act(fault, engine)

    engine.heartbeat.listeners.append(listener)


def _recorder(engine: Engine, folder: Path) -> Callable[[str], None]:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / f"rank-{engine.groups.world.rank}.txt").open("a", buffering=1)

    def listener(point: str) -> None:
        if point == "observing" and engine.samples:
            print(engine.heartbeat.step, *engine.samples, file=file)

    return listener


def _act(fault: Fault, engine: Engine) -> None:
    acts: dict[str, Callable[[], object]] = {
        "kill": lambda: _later(fault.seconds, signal.SIGKILL),
        "freeze": lambda: _later(fault.seconds, signal.SIGSTOP),
        "signal": lambda: os.kill(os.getpid(), signal.Signals[fault.name]),
        "hang": lambda: time.sleep(_FOREVER),
        "slow": lambda: time.sleep(fault.seconds),
        "nan": lambda: engine.nll.fill_(math.nan),
        "spike": lambda: engine.nll.fill_(1e6),
        "nan gradient": lambda: _spoil_gradient(engine, math.nan),
        "wrong gradient": lambda: _spoil_gradient(engine, 1.01),
        "flip": lambda: _flip(engine),
        "full disk": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY)),
        "disk again": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2),
        "remove": lambda: shutil.rmtree(fault.name),
        "clock": lambda: _jump(fault.seconds),
    }
    acts[fault.do]()


def _jump(seconds: float) -> None:
    """All that this process reads from the wall clock through Python; times of files are the kernel's, and stay."""
    clock, words = time.time, time.strftime
    time.time = lambda: clock() + seconds
    time.time_ns = lambda: int(1e9 * time.time())
    time.strftime = lambda form, when=None: words(form, when or time.localtime(time.time()))


def _later(seconds: float, what: signal.Signals) -> None:
    if not seconds:
        os.kill(os.getpid(), what)
    threading.Timer(seconds, os.kill, (os.getpid(), what)).start()


def _spoil_gradient(engine: Engine, factor: float) -> None:
    """Once, in the backward pass that comes."""
    _, parameter, _ = next(iter(engine.parameters()))

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        handle.remove()
        return gradient * factor

    hooks = dict(parameter._backward_hooks or {})
    handle = parameter.register_hook(spoil)
    parameter._backward_hooks.clear()
    parameter._backward_hooks.update({handle.id: spoil, **hooks})  # before those who look at it


@torch.no_grad()
def _flip(engine: Engine) -> None:
    _, parameter, _ = next(iter(engine.parameters()))
    getattr(parameter, "ds_tensor", parameter).view(-1)[0] += 1.0
