"""Tells a program of the user's what became of a run: finished, saved, failed, back.

The program is a list of words, started without a shell; what happened is a JSON object on its standard input.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from typing import Any, BinaryIO

import orjson

log = logging.getLogger("megarc")

_PATIENCE = 20.0  # seconds
_TAIL = 2000  # bytes of what the program says that are looked at


def notify(command: Sequence[str], event: str, facts: dict[str, Any]) -> None:
    """Runs ``command`` with ``{"event": ..., ...facts}`` on its standard input; whatever goes wrong is a warning."""
    if not command:
        return
    about = orjson.dumps({"event": event, **facts}, default=str)
    try:
        # A file, not a pipe: a program that it leaves running would hold a pipe open, and the run would wait for that.
        with os.fdopen(os.memfd_create("said"), "w+b") as said:  # also where no disk has room
            ended = subprocess.run(
                list(command),
                input=about,
                stdout=subprocess.DEVNULL,
                stderr=said,
                timeout=_PATIENCE,
                check=False,
            )
            last = _last_line(said)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        log.warning("logging.notify: %s was not told of '%s': %s", command[0], event, error)
        return
    if ended.returncode:
        log.warning(
            "logging.notify: %s ended with exit code %d when told of '%s'%s",
            command[0], ended.returncode, event, f": {last}" if last else "",
        )  # fmt: skip


def _last_line(said: BinaryIO) -> str:
    said.seek(max(said.seek(0, os.SEEK_END) - _TAIL, 0))
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
