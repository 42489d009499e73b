"""Which start of a run wrote a checkpoint, so that parts of two starts are never mixed.

A run may go on from an earlier checkpoint than its newest: a host was away, or its ranks lie otherwise. From there on
it takes another course, and later checkpoints of the one before may still lie on a host's own disk, or come back with
it. Two things in each manifest tell: the number of the start, and the step from which that went on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from megarc.train.checkpoint import layout

KEY = "course"  # of a manifest


class Course(NamedTuple):
    """Of one start: its number, and the step from which it went on."""

    start: int
    begin: int

    @classmethod
    def of(cls, folder: Path) -> Course:
        """Whose the checkpoint in ``folder`` is; one of an earlier megarc comes before all others."""
        return cls.told(layout.read_manifest(folder))

    @classmethod
    def told(cls, manifest: Mapping[str, Any]) -> Course:
        """What a manifest says."""
        found = manifest.get(KEY) or {"start": 0, "begin": 0}
        return cls(found["start"], found["begin"])

    def left_before(self, step: int, courses: Iterable[Course]) -> bool:
        """Whether the run went on without this course's ``step``: a later start, which saved, began before it."""
        return any(self.start < later.start and later.begin < step for later in courses)
