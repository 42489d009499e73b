"""trackio: a database in the run folder, unless TRACKIO_DIR names another place. The only file that knows trackio.

``TRACKIO_DIR=RUN/trackers trackio show`` shows it.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any

from megarc.train.metrics.trackers.tracker import Line, Tracked, missing, numbers_of


class TrackioProject:
    """What a killed process had not written yet is sent again: its database says how far it got."""

    def __init__(self) -> None:
        self._run: Any = None

    def open(self, run: Tracked) -> int:
        os.environ.setdefault("TRACKIO_DIR", str(run.folder.absolute()))  # read when it is imported
        try:
            import trackio
            from trackio.sqlite_storage import SQLiteStorage
        except ImportError as error:
            raise missing("trackio", "trackio", error) from None
        name = f"{run.name}-{run.identity}"
        known = SQLiteStorage.get_max_steps_for_runs(run.project)
        with contextlib.redirect_stdout(io.StringIO()):  # a run's standard output is its user's
            self._run = trackio.init(
                project=run.project, name=name, config={key: str(value) for key, value in run.config.items()},
                resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        return int(known.get(name, -1))

    def log(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._run.log(numbers_of(line), step=line["step"])

    def close(self) -> None:
        self._run.finish()
