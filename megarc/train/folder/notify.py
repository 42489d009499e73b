"""Tells a program of the user's what became of a run: finished, saved, failed, back.

The program is a list of words, started without a shell; what happened is a JSON object on its standard input.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from typing import Any

import orjson

log = logging.getLogger("megarc")

_PATIENCE = 20.0  # seconds


def notify(command: Sequence[str], event: str, facts: dict[str, Any]) -> None:
    """Runs ``command`` with ``{"event": ..., ...facts}`` on its standard input; whatever goes wrong is a warning."""
    if not command:
        return
    about = orjson.dumps({"event": event, **facts}, default=str)
    try:
        ended = subprocess.run(
            list(command), input=about, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_PATIENCE,
            check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        log.warning("logging.notify: %s was not told of '%s': %s", command[0], event, error)
        return
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        log.warning(
            "logging.notify: %s ended with exit code %d when told of '%s'%s",
            command[0], ended.returncode, event, f": {said[-1]}" if said else "",
        )  # fmt: skip
