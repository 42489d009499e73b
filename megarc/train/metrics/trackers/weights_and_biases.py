"""Weights & Biases: offline, unless WANDB_MODE says otherwise. The only file that knows wandb.

``wandb sync RUN/trackers/wandb/offline-run-*`` uploads an offline run; its parts after resumes have one id.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import orjson

from megarc.atomic_write import written_atomically
from megarc.train.metrics.trackers.tracker import Line, Tracked, missing, numbers_of

_AGAIN = 50  # steps at the end of a killed run that may not have reached the disk


class WeightsAndBiases:
    """Its x axis is ``step``, so that steps may come again: with wandb's own step they would be dropped."""

    def __init__(self) -> None:
        self._run: Any = None
        self._state: Any = None

    def open(self, run: Tracked) -> int:
        try:
            import wandb
        except ImportError as error:
            raise missing("wandb", "wandb", error) from None
        run.folder.mkdir(parents=True, exist_ok=True)
        self._state = run.folder / "wandb.json"
        self._run = wandb.init(
            project=run.project, name=run.name, id=run.identity, resume="allow", dir=str(run.folder),
            config=dict(run.config), mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type,unused-ignore]
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")
        try:
            return int(orjson.loads(self._state.read_bytes())["step"]) - _AGAIN
        except (OSError, ValueError, KeyError, TypeError):
            return -1

    def log(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._run.log({"step": line["step"], **numbers_of(line)})
        with written_atomically(self._state) as file:
            file.write(orjson.dumps({"step": lines[-1]["step"]}))

    def close(self) -> None:
        self._run.finish()
