"""One job at a time in a run folder."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import orjson

from megarc.errors import EXIT_USER_ERROR, UserError

_HEARTBEAT_SECONDS = 10.0
_STALE_SECONDS = 120.0
_GUARD_SECONDS = 10.0  # for which another job may be looking at the lock
_RACE_SECONDS = 1.0  # where the disk knows no guard: for a rival that looked at the lock in the same moment


def _end(message: str) -> NoReturn:
    """Two jobs in one folder spoil it, so the one that lost it ends at once, and saves nothing there."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(EXIT_USER_ERROR)


@contextmanager
def hold(
    lock: Path, *, beat: float = _HEARTBEAT_SECONDS, lost: Callable[[str], None] = _end
) -> Iterator[str | None]:
    """Holds the lock while the block runs; yields a sentence where a stale one was taken over.

    A lock is stale when its process is gone from this host, when it is of an
    earlier start of this same SLURM job, or (on another host) when its file was
    not written for two minutes. No host's clock is asked: a process is known by
    the kernel's ticks, and ages are differences of times of the file system.

    Args:
        beat: seconds between signs of life.
        lost: called, on another thread, when another job has taken the lock; by default this process ends.

    Raises:
        UserError: where a living job holds it, naming that job.
    """
    token = uuid.uuid4().hex
    taken_over = _take(lock, token)
    stop = threading.Event()
    heart = threading.Thread(
        target=_beat, args=(lock, token, stop, beat, lost), name="heartbeat", daemon=True
    )
    heart.start()
    try:
        yield taken_over
    finally:
        stop.set()
        heart.join()
        with suppress(OSError):
            if _is_ours(_read(lock), token):
                lock.unlink(missing_ok=True)


def _take(lock: Path, token: str) -> str | None:
    taken_over = None
    try:
        with _alone(lock) as guarded:
            holder = _read(lock)
            if holder is not None:
                taken_over = _check_gone(lock, holder, token)
            _write(lock, token)
        if not guarded:
            time.sleep(_RACE_SECONDS)
        ours = _is_ours(_read(lock), token)
    except OSError as error:
        raise UserError(f"the run folder {lock.parent} cannot be written: {error}") from None
    if not ours:
        raise UserError(f"the run folder {lock.parent} was just taken by another job")
    return taken_over


def _check_gone(lock: Path, holder: dict[str, Any], token: str) -> str:
    """What is said of a lock that is taken over; a living job's is not."""
    who = f"process {holder['process']} on {holder['host']}" + (
        f", job {holder['job']}" if holder["job"] else ""
    )
    age = _age(lock, token)
    if not _alive(holder, age):
        return f"took over the lock of {who}, which is gone"
    gone = (
        f" (or wait, if that host is gone: the lock expires after {_STALE_SECONDS:.0f} s without a heartbeat)"
    )
    raise UserError(
        f"the run folder {lock.parent} is in use by {who}, last seen {max(0.0, age):.0f} s ago; stop that job, or "
        f"use another folder{'' if holder['host'] == socket.gethostname() else gone}"
    )


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """While the block runs, nobody else looks at the lock or writes it; false where the disk cannot promise that."""
    with lock.with_name(f"{lock.name}.guard").open("ab") as guard:
        end = time.monotonic() + _GUARD_SECONDS
        held = None
        while held is None:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                if time.monotonic() > end:
                    raise UserError(f"the run folder {lock.parent} is being taken by another job") from None
                time.sleep(0.02)
            except OSError:
                held = False
        yield held


def _write(lock: Path, token: str) -> None:
    facts = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "restart": _restarts(),
        "space": _process_space(),
        "started": _process_start(os.getpid()),
        "token": token,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    beside = lock.with_name(f"{lock.name}.{token}.part")
    try:
        beside.write_bytes(orjson.dumps(facts))
        beside.replace(lock)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _read(lock: Path) -> dict[str, Any] | None:
    """What the lock says; None: there is none."""
    nobody = {"host": "an unknown host", "process": 0, "job": None}
    try:
        found = orjson.loads(lock.read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError:
        return nobody  # a disk that lost its content
    return {**nobody, **found} if isinstance(found, dict) else nobody


def _age(lock: Path, token: str) -> float:
    """Seconds since the lock was written, by the file system's clock alone."""
    probe = lock.with_name(f"{lock.name}.{token}.part")
    probe.write_bytes(b"")
    try:
        return probe.stat().st_mtime - lock.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _restarts() -> int:
    """How often SLURM started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _is_ours(holder: dict[str, Any] | None, token: str) -> bool:
    return holder is not None and holder.get("token") == token


def _alive(holder: dict[str, Any], age: float) -> bool:
    space, started = _process_space(), holder.get("started")
    here = holder["host"] == socket.gethostname() and holder.get("space", space) == space
    if here and isinstance(started, str):
        # When it started tells the process from a later one with the same number.
        return _process_start(holder["process"]) == started
    if (
        holder["job"]
        and holder["job"] == os.environ.get("SLURM_JOB_ID")
        and holder.get("restart", 0) < _restarts()
    ):
        return False
    return age < _STALE_SECONDS and holder["process"] != 0


def _process_start(process: int) -> str | None:
    """When a process of this host started, in ticks of the kernel since its start; None: it is gone."""
    try:
        content = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return _process_start_elsewhere(process)
    state, *rest = content.rpartition(")")[
        2
    ].split()  # a name may hold anything but what follows its last bracket
    return None if state in "ZX" else f"{boot} {rest[18]}"


def _process_start_elsewhere(process: int) -> str | None:
    """The same without /proc, rounded: what the system makes of it moves with the clock."""
    import psutil

    try:
        return None if Path("/proc/self").exists() else f"{psutil.Process(process).create_time() / 60:.0f}"
    except psutil.Error:
        return None


def _process_space() -> str | None:
    """In which numbering of processes this one is: a container has its own; None: there is but one."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _beat(lock: Path, token: str, stop: threading.Event, seconds: float, lost: Callable[[str], None]) -> None:
    while not stop.wait(seconds):
        try:
            with _alone(lock):
                holder = _read(lock)
                if holder is None or _is_ours(holder, token):
                    _write(lock, token)
                    continue
        except (OSError, UserError):
            continue  # a disk in trouble: no sign of another job
        lost(
            f"process {holder['process']} on {holder['host']} took over the run folder {lock.parent} while this job "
            "seemed gone; this one ends"
        )
        return
