"""The observer that saves checkpoints."""

from __future__ import annotations

from megarc.config import to_dict
from megarc.train.checkpoint import Saver, Standing
from megarc.train.config import RunConfig
from megarc.train.engine import Engine, StepResult
from megarc.train.folder import RunFolder
from megarc.train.observers import Moment


class Checkpoints:
    """Saves every ``checkpoint.every`` and at the end; tells in state.json what the run has reached."""

    def __init__(self, config: RunConfig, folder: RunFolder, saver: Saver, sources: list[str]) -> None:
        self.config, self.folder, self.saver, self.sources = config, folder, saver, sources
        self.every = config.steps(config.checkpoint.every)

    def start(self, engine: Engine, moment: Moment) -> None:
        self._tell(engine, "running", moment)

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        if moment.every(self.every):
            standing = Standing(moment.step, moment.samples, sources=self.sources)
            self.saver.save(engine, standing, {"config": to_dict(self.config)})

    def stop(self, engine: Engine, moment: Moment) -> None:
        self.saver.wait()
        self._tell(engine, "finished", moment)

    def _tell(self, engine: Engine, state: str, moment: Moment) -> None:
        if engine.groups.first:
            self.folder.tell(state, step=moment.step, total=moment.total)
