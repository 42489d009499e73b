"""How busy experts are: numbers beside the loss, and the rows of each expert in experts.jsonl."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import orjson

from megarc.parallel import gather_objects
from megarc.train.engine import Engine
from megarc.train.folder import Lines, RunFolder
from megarc.train.loop import Done, Ending, Moment, Observer
from megarc.train.metrics.metrics import cut_lines


class ExpertLoads(Observer):
    """``values`` is asked for with each line of metrics, by all ranks; rank 0 adds a line to experts.jsonl."""

    def __init__(self, folder: RunFolder, *, patient: bool) -> None:
        self.folder, self.patient = folder, patient
        self.file: Lines | None = None
        self._engine: Engine | None = None
        self._step = 0

    def start(self, engine: Engine, moment: Moment) -> None:
        if engine.config.model.experts is None:
            return
        self._engine = engine
        if engine.groups.first:
            cut_lines(self.folder.experts, moment.step)
            self.file = Lines(self.folder.experts, patient=self.patient)

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> None:
        self._step = moment.step

    def values(self) -> dict[str, float]:
        """Since the last line, over all layers with experts.

        ``busiest`` and ``idlest`` are rows of one expert over the mean of its layer, 1 where all is even.
        """
        engine = self._engine
        if engine is None:
            return {}
        own = [] if engine.experts is None else engine.experts.read()
        loads = [load for stage in gather_objects(own, engine.groups.pipeline) for load in stage]
        loads = [load for load in loads if sum(load.counts)]
        if not loads:  # no step of these had an update
            return {}
        if self.file is not None:
            rows = {str(load.layer): [round(count) for count in load.counts] for load in loads}
            self.file.add(orjson.dumps({"step": self._step, "rows": rows}))
        relative = [count / statistics.fmean(load.counts) for load in loads for count in load.counts]
        return {
            "experts/busiest": max(relative),
            "experts/idlest": min(relative),
            "experts/entropy": statistics.fmean(load.entropy for load in loads),
            "experts/balance_loss": statistics.fmean(load.balance for load in loads),
            "experts/router_z_loss": statistics.fmean(load.z_loss for load in loads),
            "experts/dropped": sum(load.dropped for load in loads),
        }

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        if self.file is not None:
            self.file.close()
