"""A program to be enclosed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Program:
    """What is started, and what it may see besides the system's /usr.

    Attributes:
        command: the program and its arguments, as seen inside.
        environment: its whole environment, but for PATH and HOME.
        read_only: files or folders of the host that it may read: where they lie, and where they are seen inside.
        merged: standard error goes where standard output goes, in order.
        hostname: what it believes the machine to be called.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    read_only: tuple[tuple[str, str], ...] = ()
    merged: bool = False
    hostname: str = "sandbox"
