"""Which start of a run wrote a checkpoint, so that parts of two starts are never mixed.

A run may resume from a checkpoint before its newest one, because a host is missing or the layout has changed. Later
checkpoints of the earlier start may still be on a host's own disk, or return with it. Each manifest therefore records
two numbers: that of the start, and the step from which that start resumed. The two are called a course.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from megarc.train.checkpoint import layout

KEY = "course"  # of a manifest


class Course(NamedTuple):
    """One start of a run: its number, and the step from which it resumed."""

    start: int
    begin: int

    @classmethod
    def of(cls, folder: Path) -> Course:
        """The course of the checkpoint in ``folder``; manifests of an earlier megarc are before all others."""
        return cls.told(layout.read_manifest(folder))

    @classmethod
    def told(cls, manifest: Mapping[str, Any]) -> Course:
        """What a manifest says."""
        found = manifest.get(KEY) or {"start": 0, "begin": 0}
        return cls(found["start"], found["begin"])

    def left_before(self, step: int, courses: Iterable[Course]) -> bool:
        """Whether the run has abandoned this course's ``step``: a later start, which saved, began before it."""
        return any(self.start < later.start and later.begin < step for later in courses)
