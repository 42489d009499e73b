"""The observer that saves checkpoints."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from megarc.config import WORKING_FOLDER
from megarc.errors import UserError
from megarc.parallel import gather_objects
from megarc.train.checkpoint.course import KEY as COURSE
from megarc.train.checkpoint.course import Course
from megarc.train.checkpoint.save import Saver
from megarc.train.checkpoint.storage_level import Level
from megarc.train.engine import Engine
from megarc.train.folder import RunFolder
from megarc.train.loop import Done, Ending, Moment, Observer, Vote
from megarc.train.metrics import peak_memory
from megarc.train.run_position import Standing
from megarc.train.schedule import Interval

log = logging.getLogger("megarc")

StandingOf = Callable[[Moment], Standing]


@dataclass(frozen=True, slots=True)
class Due:
    """A level and the time between its checkpoints."""

    level: Level
    every: Interval


class Checkpoints(Observer):
    """Saves when a level is due, at the end, and where a signal ends the run; tells in state.json what was reached.

    While steps are bad nothing is saved: what would be is due after the next good one. So the last checkpoint
    before bad steps stays.
    """

    def __init__(
        self,
        config: dict[str, Any],
        on_error: Literal["stop", "continue"],
        folder: RunFolder,
        saver: Saver,
        levels: list[Due],
        standing_of: StandingOf,
        saved: int | None,
        course: Course,
    ) -> None:
        """
        Args:
            config: the run's, resolved, as it is written into each checkpoint.
            on_error: whether the run ends when a checkpoint cannot be written.
            levels: the first is the shared one.
            saved: the step of which the shared level holds a checkpoint.
            course: written into each checkpoint, too.
        """
        self.config, self.on_error, self.folder, self.saver = config, on_error, folder, saver
        self.levels, self.standing_of = levels, standing_of
        self._saved, self.course = saved, course
        self._overdue: set[int] = set()

    def start(self, engine: Engine, moment: Moment) -> None:
        self._tell(engine, "running", moment)

    def vote(self) -> Vote:
        return Vote.LOOK if self.saver.failed else Vote.NOTHING

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> None:
        if Vote.LOOK in moment.agreed:
            self._allowing_for_errors(self.saver.wait)
        self._overdue |= {number for number, due in enumerate(self.levels) if moment.every(due.every)}
        if not self._overdue or steps[-1].left_out:
            return
        level = self.levels[min(self._overdue)].level
        self._overdue.clear()
        self._allowing_for_errors(lambda: self._save(engine, moment, level))

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        shared = self.levels[0].level
        if ending is Ending.BACK:
            self._allowing_for_errors(self.saver.finish)
            return
        engine.heartbeat.enter("saving")
        try:
            self.saver.wait()
        except UserError as error:
            if self.on_error == "stop":
                raise
            log.warning("%s; tried once more at the end", error)
            self._saved = None
        if self._saved != moment.step:
            self.saver.save(engine, self.standing_of(moment), self._facts(), shared)
        self.saver.finish()
        self._tell(engine, ending.value, moment)

    def _facts(self) -> dict[str, Any]:
        """What a manifest says beside where the run stands; relative paths are of this working folder."""
        return {"config": self.config, WORKING_FOLDER: str(Path.cwd()), COURSE: self.course._asdict()}

    def _save(self, engine: Engine, moment: Moment, level: Level) -> None:
        patient = self.on_error == "stop" or moment.last
        if not patient and self.saver.busy():
            if engine.groups.first:
                log.warning("step %d is not saved: the disk is still busy with the last one", moment.step)
            return
        engine.heartbeat.enter("saving")
        self.saver.save(engine, self.standing_of(moment), self._facts(), level)
        if level is self.levels[0].level:
            self._saved = moment.step

    def _allowing_for_errors(self, act: Callable[[], None]) -> None:
        """A checkpoint that cannot be written ends the run, or does not, by ``checkpoint.on_error``."""
        try:
            act()
        except UserError as error:
            self._saved = None
            if self.on_error == "stop":
                raise
            if self.saver.groups.first:
                log.warning("%s; training continues, and the next checkpoint is tried when it is due", error)

    def _tell(self, engine: Engine, state: str, moment: Moment) -> None:
        own = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "peak_gib": round(peak_memory(engine.groups.device) / 2**30, 3),
        }
        ranks = gather_objects(own, engine.groups.world)
        if engine.groups.first:
            self.folder.write_state(
                state, step=moment.step, total=moment.total, skipped=moment.skipped, ranks=ranks
            )
