"""Runs the commands of megarc as a person would, and shows what that person would type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from megarc.command import resources
from megarc.errors import UserError


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_seconds() -> float:
    """CPU time of this process and of all that it has started and seen end."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def resource(name: str) -> Path:
    """A script or configuration of megarc; relative where it lies below the current folder."""
    path = resources() / name
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def show(words: Sequence[object]) -> None:
    print("$ " + shlex.join(map(str, words)), flush=True)


def run(script: str, *arguments: object) -> None:
    """Runs ``script`` and shows the command.

    Raises:
        UserError: where it fails; its own message stands above.
    """
    command = [resource(script), *arguments]
    show(["python", *command])
    done = subprocess.run([sys.executable, *map(str, command)])
    if done.returncode:
        raise UserError(f"{script} failed (exit code {done.returncode}); its message is printed above")
