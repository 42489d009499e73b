"""A run's measure by step, from its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import orjson

from megarc.errors import UserError
from megarc.jobs import Job

Points: TypeAlias = list[tuple[int, float]]

_DUE_TOGETHER = ("heldout/", "train/", "tasks/")


def curve(job: Job, measure: str) -> tuple[Points, int]:
    """The measure by step, and the last step at which it is due.

    A line of metrics leaves out what is not finite: a loss is due wherever its neighbours of the same prefix stand.

    Raises:
        UserError: where the run has no such metric, or a line of its metrics is damaged.
    """
    lines = _lines(job.folder.metrics)
    points = [(int(line["step"]), float(line[measure])) for line in lines if line.get(measure) is not None]
    if not points:
        known = sorted({name for line in lines for name in line if "/" in name})
        raise UserError(
            f"the run {job.config.folder} has no metric '{measure}'; set the key measure to one of {', '.join(known)}"
        )
    if not measure.startswith(_DUE_TOGETHER):
        return points, points[-1][0]
    beside = measure.rpartition("/")[0] + "/"
    return points, max(int(line["step"]) for line in lines if any(name.startswith(beside) for name in line))


def _lines(metrics: Path) -> list[dict[str, Any]]:
    """Every line of a finished run's metrics."""
    found = []
    try:
        for number, line in enumerate(metrics.read_bytes().splitlines(), start=1):
            entry = orjson.loads(line)
            if not isinstance(entry, dict) or type(entry.get("step")) is not int:
                raise UserError(f"{metrics}, line {number}, is not a line of metrics; remove it")
            found.append(entry)
    except OSError as error:
        raise UserError(f"{metrics} cannot be read: {error}") from None
    except orjson.JSONDecodeError as error:
        raise UserError(
            f"{metrics}, line {len(found) + 1}, is not a line of metrics ({error}); remove it"
        ) from None
    return found
