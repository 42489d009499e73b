"""MLflow: a database in the run folder, unless MLFLOW_TRACKING_URI says where. The only file that knows mlflow.

``mlflow ui --backend-store-uri sqlite:///RUN/trackers/mlflow.db`` shows it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any

from megarc.train.metrics.trackers.tracker import Line, Tracked, missing, numbers_of

_TAG = "megarc.run"
_MOST_METRICS, _MOST_PARAMETERS, _LONGEST = 1000, 100, 500  # of one call, and of a parameter's value


class MlflowStore:
    """A run is found again by a tag. Parameters are written once: MLflow refuses others."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run = ""

    def open(self, run: Tracked) -> int:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Param
        except ImportError as error:
            raise missing("mlflow", "mlflow", error) from None
        run.folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(
            os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{run.folder.absolute()}/mlflow.db")
        )
        known = self._client.get_experiment_by_name(run.project)
        experiment = known.experiment_id if known else self._client.create_experiment(run.project)
        found = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{run.identity}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            steps = self._client.get_metric_history(self._run, "samples")
            return max((metric.step for metric in steps), default=-1)
        self._run = self._client.create_run(
            experiment, tags={_TAG: run.identity}, run_name=run.name
        ).info.run_id
        parameters = [Param(_allowed(name), str(value)[:_LONGEST]) for name, value in run.config.items()]
        for first in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(self._run, params=parameters[first : first + _MOST_PARAMETERS])
        return -1

    def log(self, lines: Sequence[Line]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(_allowed(name), float(value), round(1000 * line["time"]), line["step"])
            for line in lines
            for name, value in numbers_of(line).items()
            if math.isfinite(value)  # inf would come back as 1.8e308
        ]
        for first in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run, metrics=metrics[first : first + _MOST_METRICS])

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _allowed(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_./: -]", "_", name)
