"""Hands the lines of metrics.jsonl to trackers, in a thread of rank 0."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson

from megarc.errors import UserError
from megarc.train.engine import Engine
from megarc.train.loop import Done, Ending, Moment, Observer
from megarc.train.metrics.trackers.csv_file import CsvFile
from megarc.train.metrics.trackers.mlflow_store import MlflowStore
from megarc.train.metrics.trackers.tracker import Line, Tracked, Tracker
from megarc.train.metrics.trackers.trackio_project import TrackioProject
from megarc.train.metrics.trackers.weights_and_biases import WeightsAndBiases

log = logging.getLogger("megarc")

KINDS: Mapping[str, Callable[[], Tracker]] = {
    "csv": CsvFile,
    "wandb": WeightsAndBiases,
    "mlflow": MlflowStore,
    "trackio": TrackioProject,
}
_PATIENCE = 60.0  # seconds that a run waits at its end for each tracker


class Trackers(Observer):
    """One thread a tracker. Stands behind the metrics in the list of observers: their lines are on disk then.

    A tracker gets every line behind what it says is safe there, and behind the step where the run stands. So after a
    kill nothing is missing, and steps that are taken again come again.

    Args:
        names: of ``KINDS``.
        metrics: the file metrics.jsonl.
    """

    def __init__(
        self, names: Sequence[str], run: Callable[[], Tracked], metrics: Path, *, first: bool
    ) -> None:
        self._names, self._run, self._metrics = (list(names) if first else []), run, metrics
        self._threads: list[_Ship] = []

    def start(self, engine: Engine, moment: Moment) -> None:
        if self._names:
            run = self._run()
            self._threads = [_Ship(name, run, self._metrics, moment.step) for name in self._names]

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> None:
        for ship in self._threads:
            ship.news.set()

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        for ship in self._threads:
            ship.end()


class _Ship(threading.Thread):
    def __init__(self, name: str, run: Tracked, metrics: Path, step: int) -> None:
        super().__init__(name=f"megarc-{name}", daemon=True)
        self._tracker, self._kind, self._step = KINDS[name](), name, step
        self._about, self._metrics, self._offset = run, metrics, 0
        self.news, self._ended = threading.Event(), threading.Event()
        self.start()

    def end(self) -> None:
        """Waits until all is handed over, for as long as is reasonable."""
        self._ended.set()
        self.news.set()
        self.join(_PATIENCE)
        if self.is_alive():
            log.warning(
                "logging.trackers: %s has not taken all lines after %.0f s; metrics.jsonl has them, and the next start "
                "sends them", self._kind, _PATIENCE,
            )  # fmt: skip

    def run(self) -> None:
        try:
            behind = min(self._tracker.open(self._about), self._step)
            while True:
                over = self._ended.is_set()  # looked at first: the lines before it are read below
                lines = [line for line in self._new_lines() if line["step"] > behind]
                if lines:
                    self._tracker.log(lines)
                if over:
                    break
                self.news.wait()
                self.news.clear()
            self._tracker.close()
        except UserError as error:
            log.warning("%s; the run goes on without it", error)
        except BaseException as error:  # whatever a client raises, SystemExit too: no reason to stop a run
            log.warning(
                "logging.trackers: %s failed (%s: %s); the run goes on without it, and metrics.jsonl has every line",
                self._kind, type(error).__name__, error,
            )  # fmt: skip

    def _new_lines(self) -> list[Line]:
        """Whole lines since the last look."""
        try:
            with self._metrics.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [orjson.loads(line) for line in whole.splitlines()]
