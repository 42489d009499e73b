"""The runs of a study."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from megarc.config import overlaid
from megarc.errors import UserError
from megarc.jobs import Job
from megarc.science.studies.config import GridConfig, SizeConfig
from megarc.train import Lengths


class Cell(NamedTuple):
    """One run of the grid; ``at`` is None in a study without sizes."""

    arm: str
    at: float | None
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        arm = re.sub(r"[^\w.+-]+", "-", self.arm).strip("-") or "arm"
        return "-".join([arm, *([] if self.at is None else [f"{self.at:g}"]), f"s{self.seed}"])


def grid(study: GridConfig) -> dict[Cell, Job]:
    """Every run, the smallest sizes first.

    Raises:
        UserError: where an arm's or a size's keys are none of a run, or two arms would have one folder.
    """
    jobs: dict[Cell, Job] = {}
    sizes: list[SizeConfig | None] = [*sorted(study.sizes, key=lambda one: one.at)]
    for size in sizes or [None]:
        sized, at = study.run, None
        if size is not None:
            sized, at = overlaid(study.run, size.keys, f"sizes, {study.axis} {size.at:g}"), size.at
        own = {arm.name: overlaid(sized, _filled_in(arm.keys, at), f"arms, {arm.name}") for arm in study.arms}
        for number in range(study.seeds):  # so that a study that was stopped has all arms on its first seeds
            for arm, run in own.items():
                cell = Cell(arm, at, run.seed + number)
                folder = study.folder / "runs" / cell.name
                config = run.model_copy(update={"seed": cell.seed, "folder": folder})
                jobs[cell] = Job(config, Lengths(config).total)
    folders = [job.config.folder for job in jobs.values()]
    if len(set(folders)) < len(folders):
        raise UserError("two arms of the study would have one folder; give them names that differ in letters")
    return jobs


def _filled_in(keys: Any, at: float | None) -> Any:
    """``keys`` with the size's number wherever '{at}' stands."""
    if isinstance(keys, dict):
        return {name: _filled_in(value, at) for name, value in keys.items()}
    if isinstance(keys, list):
        return [_filled_in(value, at) for value in keys]
    if keys != "{at}" or at is None:
        return keys
    return int(at) if at == int(at) else at
