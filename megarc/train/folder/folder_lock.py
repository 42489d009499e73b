"""One job at a time in a run folder."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from megarc.errors import UserError

log = logging.getLogger("megarc")

_HEARTBEAT_SECONDS = 10.0
_STALE_SECONDS = 120.0


@contextmanager
def hold(lock: Path) -> Iterator[str | None]:
    """Holds the lock while the block runs; yields a sentence where a stale one was taken over.

    A lock is stale when its process is gone from this host, when it is of an
    earlier start of this same SLURM job, or (on another host) when its heartbeat
    is older than two minutes.

    Raises:
        UserError: where a living job holds it, naming that job.
    """
    taken_over = _take(lock)
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(lock, stop), name="heartbeat", daemon=True)
    heart.start()
    try:
        yield taken_over
    finally:
        stop.set()
        heart.join()
        if _is_ours(_read(lock)):
            lock.unlink(missing_ok=True)


def _take(lock: Path) -> str | None:
    taken_over = None
    holder = _read(lock)
    if holder is not None:
        who = f"process {holder['process']} on {holder['host']}" + (
            f", job {holder['job']}" if holder["job"] else ""
        )
        if _alive(holder):
            seen = max(0.0, time.time() - holder["heartbeat"])
            gone = f" (or wait, where that host is gone: {_STALE_SECONDS:.0f} s without a sign are enough)"
            raise UserError(
                f"the run folder {lock.parent} is in use by {who}, last seen {seen:.0f} s ago; stop that job, or "
                f"use another folder{'' if holder['host'] == socket.gethostname() else gone}"
            )
        taken_over = f"took over the lock of {who}, which is gone"
        lock.unlink(missing_ok=True)
    try:
        with lock.open("xb") as file:
            file.write(_content())
    except FileExistsError:
        raise UserError(f"the run folder {lock.parent} was just taken by another job") from None
    except OSError as error:
        raise UserError(f"the run folder {lock.parent} cannot be written: {error}") from None
    return taken_over


def _content() -> bytes:
    return orjson.dumps(
        {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID"),
            "restart": _restarts(),
            "started": _process_start(os.getpid()),
            "heartbeat": time.time(),
        }
    )


def _read(lock: Path) -> dict[str, Any] | None:
    try:
        return orjson.loads(lock.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError):
        # Half written by a job that died in that moment.
        unknown = {"host": "an unknown host", "process": 0, "job": None, "restart": 0}
        return {**unknown, "started": None, "heartbeat": 0.0}


def _restarts() -> int:
    """How often SLURM started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _is_ours(holder: dict[str, Any] | None) -> bool:
    return holder is not None and (holder["host"], holder["process"]) == (socket.gethostname(), os.getpid())


def _alive(holder: dict[str, Any]) -> bool:
    if holder["job"] and holder["job"] == os.environ.get("SLURM_JOB_ID"):
        return holder.get("restart", 0) >= _restarts()
    if holder["host"] == socket.gethostname():
        # The start time tells the process from a later one with the same number.
        return bool(holder["started"]) and _process_start(holder["process"]) == holder["started"]
    return time.time() - holder["heartbeat"] < _STALE_SECONDS


def _process_start(process: int) -> float | None:
    import psutil

    try:
        return psutil.Process(process).create_time()
    except psutil.Error:
        return None


def _beat(lock: Path, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT_SECONDS):
        try:
            if lock.exists() and not _is_ours(_read(lock)):
                log.error("another job took over the run folder %s while this one seemed gone", lock.parent)
                return
            beside = lock.with_name("lock.part")
            beside.write_bytes(_content())
            beside.replace(lock)
        except OSError:
            continue
