"""A signal ends a run after the step under way, with a checkpoint."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from megarc.train.engine import Engine
from megarc.train.loop import Done, Ending, Moment, Observer, Vote

log = logging.getLogger("megarc")

# SLURM: TERM before a preemption or at the time limit, USR1 where --signal asks for it. INT: Ctrl-C.
CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Signals(Observer):
    """Any rank's signal ends the run on all ranks after the same step. A second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.seen: signal.Signals | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catches the signals while the block runs. Only a main thread can; elsewhere nothing is caught."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, Any] = {one: signal.signal(one, self._note) for one in CAUGHT}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def vote(self) -> Vote:
        return Vote.END if self.seen else Vote.NOTHING

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> Ending | None:
        if Vote.END not in moment.agreed or moment.last:
            return None
        if engine.groups.first:
            why = self.seen.name if self.seen else "a signal on another rank"
            log.info("%s: saves at step %d and ends; the same command resumes from there", why, moment.step)
        return Ending.SAVED

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.seen is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.seen = signal.Signals(number)
