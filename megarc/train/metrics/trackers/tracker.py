"""What a tracker does, and what it is told of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from megarc.errors import UserError

Line: TypeAlias = Mapping[str, Any]
"""A line of metrics.jsonl: numbers by name, among them ``step``; null where one is undefined."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A run, as trackers name it.

    Attributes:
        identity: kept for good, and of no other run: what makes a resumed run the same curve.
        config: every key, flat: ``optimizer.lr`` and so on.
        folder: where a tracker may write.
    """

    project: str
    name: str
    identity: str
    config: Mapping[str, Any]
    folder: Path


class Tracker(Protocol):
    """Opened, used and closed in one thread. Whatever it raises is said once, and ends this tracker alone."""

    def open(self, run: Tracked) -> int:
        """Begins, or goes on with, the run; the last step that is safely there already, -1: none."""

    def log(self, lines: Sequence[Line]) -> None:
        """Lines in the order of the run. After a resume, steps may come again."""

    def close(self) -> None:
        """All lines are safe when it returns."""


def numbers_of(line: Line) -> dict[str, float]:
    """The numbers of a line, but for its step and time."""
    return {name: value for name, value in line.items() if value is not None and name not in ("step", "time")}


def missing(package: str, extra: str, error: ImportError) -> UserError:
    """What is said where a tracker's package is not installed, or is there and cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return UserError(f"logging.trackers: {package} is not installed: pip install 'megarc[{extra}]'")
    return UserError(
        f"logging.trackers: {package} cannot be imported ({error}): is it whole? pip install 'megarc[{extra}]'"
    )


def flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested keys with dots; lists as they are."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found
