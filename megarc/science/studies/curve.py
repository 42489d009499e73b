"""A run's measure by step, from its metrics."""

from __future__ import annotations

from typing import TypeAlias

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
    try:
        lines = job.folder.metric_lines()
    except OSError as error:
        raise UserError(f"{job.folder.metrics} cannot be read: {error}") from None
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
