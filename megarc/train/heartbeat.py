"""Where this rank is in its work, for whoever watches: step, phase, since when."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable


class Heartbeat:
    """The main thread says where it is (``enter``); the watchdog, the stragglers' table and tests read it."""

    def __init__(self) -> None:
        self.step = 0
        self.phase = "starting"
        self.count = 0  # phases entered since the start: who has fewer is behind
        self.since = time.monotonic()
        self.spent: dict[str, float] = defaultdict(float)  # seconds of each phase, until somebody takes them
        self.listeners: list[Callable[[str], None]] = []

    def enter(self, phase: str) -> None:
        """The main thread begins ``phase`` now."""
        now = time.monotonic()
        self.spent[self.phase] += now - self.since
        self.phase, self.since, self.count = phase, now, self.count + 1
        self.pass_by(phase)

    def pass_by(self, point: str) -> None:
        """A point worth a listener's notice, on any thread; the phase stays."""
        for listener in self.listeners:
            listener(point)

    def take_spent(self) -> dict[str, float]:
        """Seconds of each phase since the last call."""
        spent, self.spent = dict(self.spent), defaultdict(float)
        return spent
