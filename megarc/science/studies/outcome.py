"""What came of a study: a row for each arm and size, comparisons paired by seed, words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from megarc.errors import UserError, shortened
from megarc.jobs import Job
from megarc.science.statistics import Difference, paired
from megarc.science.studies.config import GridConfig
from megarc.science.studies.curve import Points, curve
from megarc.science.studies.grid import Cell

SURE = 0.05
"""A difference is called clear where its p-value, after Holm's correction over the study, is below."""
_NAMED = 6  # runs of a list


@dataclass(frozen=True, slots=True)
class Row:
    """An arm at a size: the measure of each seed."""

    arm: str
    at: float | None
    values: Mapping[int, float]  # by seed

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))

    @property
    def error(self) -> float:
        """Standard error of the mean over seeds; NaN for one."""
        many = list(self.values.values())
        return float(np.std(many, ddof=1) / math.sqrt(len(many))) if len(many) > 1 else math.nan


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the control at a size; ``difference.mean`` above 0 where the arm's value is higher.

    ``row`` and ``control`` hold the seeds that both have, so ``difference.mean`` is the difference of their means.
    ``p`` is two-sided after Holm's correction over all comparisons of the study (Holm 1979, Scandinavian
    Journal of Statistics 6, 65-70); NaN for one pair.
    """

    row: Row
    control: Row
    difference: Difference
    p: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of the runs that are finished.

    Attributes:
        curves: of each run, the measure by step.
        failed: names of runs that ended without being finished, with the reason.
        missing: names of runs that have not been made, or not to their end.
    """

    study: GridConfig
    rows: Sequence[Row]
    curves: Mapping[Cell, Points]
    failed: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()

    def comparisons(self) -> list[Comparison]:
        """Each arm against the control at the same size, on the seeds that both have."""
        found: list[tuple[Row, Row, Difference]] = []
        for row in self.rows:
            control = next((one for one in self.rows
                            if (one.arm, one.at) == (self.study.compared_with, row.at)), None)  # fmt: skip
            if control is None or control is row:
                continue
            seeds = sorted(row.values.keys() & control.values.keys())
            if seeds:
                both = [
                    Row(one.arm, one.at, {seed: one.values[seed] for seed in seeds}) for one in (row, control)
                ]
                ours, theirs = (list(one.values.values()) for one in both)
                found.append((both[0], both[1], paired(theirs, ours)))
        corrected = holm([difference.p for _, _, difference in found])
        return [Comparison(*one, p) for one, p in zip(found, corrected, strict=True)]

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Columns and rows, for ``megarc.report.table``."""
        sized = bool(self.study.sizes)
        columns = [*([self.study.axis] if sized else []), "arm", "n", "mean", "+-", "by seed",
                   f"above {self.study.compared_with}", "+- of it", "p"]  # fmt: skip
        against = {(one.row.arm, one.row.at): one for one in self.comparisons()}
        rows: list[list[object]] = []
        for row in self.rows:
            one = against.get((row.arm, row.at))
            known: list[object] = [None, None, None]
            if one is not None:
                known = [f"{one.difference.mean:+.4f}", _number(one.difference.error), _number(one.p)]
            each = " ".join(f"{value:.3f}" for _, value in sorted(row.values.items()))
            place = [f"{row.at:g}"] if sized else []
            rows.append(
                [*place, row.arm, len(row.values), f"{row.mean:.4f}", _number(row.error), each, *known]
            )
        return columns, rows

    def words(self) -> str:
        """What it comes to, with n."""
        parts = [self._of_comparison(one) for one in self.comparisons()]
        if self.study.reach is not None and self.study.sizes:
            parts.append(self._reached(self.study.reach))
        if not parts:
            parts = [f"{row.arm}{self._place(row)}: {self.study.measure} {row.mean:.3f} (n = {len(row.values)})."
                     for row in self.rows]  # fmt: skip
        total = len(self.curves) + len(self.failed) + len(self.missing)
        for names, what in ((list(self.failed), "failed"), (self.missing, "not finished")):
            if names:
                parts.append(f"{len(names)} of {total} runs {what}: {_listed(names)}.")
        return " ".join(parts)

    # ---- helpers

    def _place(self, row: Row) -> str:
        return "" if row.at is None else f" at {self.study.axis} {row.at:g}"

    def _of_comparison(self, one: Comparison) -> str:
        seeds = one.difference.pairs
        figures = f"{one.row.mean:.3f} against {one.control.mean:.3f} (n = {seeds}"
        if math.isnan(one.p):
            return f"{one.row.arm} has {figures} seed){self._place(one.row)}: one seed shows no difference."
        figures += f" seeds, {one.difference.mean:+.3f} +- {one.difference.error:.3f}, p = {one.p:.2g})"
        if one.p >= SURE:
            return (
                f"{one.row.arm} and {one.control.arm} do not differ clearly{self._place(one.row)}: {figures}."
            )
        good = (one.difference.mean > 0) == (self.study.better == "higher")
        side = "ahead of" if good else "behind"
        return f"{one.row.arm} is {side} {one.control.arm}{self._place(one.row)}: {figures}."

    def _reached(self, level: float) -> str:
        found = []
        for arm in self.study.arms:
            rows = [row for row in self.rows if row.arm == arm.name and row.at is not None]
            good = [row.at for row in rows
                    if row.at is not None and (row.mean >= level) == (self.study.better == "higher")]  # fmt: skip
            found.append(f"{arm.name} {f'{min(good):g}' if good else 'none'}")
        return f"Smallest {self.study.axis} with a mean of {level:g}: {', '.join(found)}."


def read_outcome(
    study: GridConfig, jobs: Mapping[Cell, Job], failed: Mapping[str, str] | None = None
) -> Outcome:
    """Of the jobs that are finished.

    A run whose measure is not a finite number at its end has failed: an earlier value is not its last one.

    Args:
        failed: runs that have just ended without being finished, with the reason; of others, their folder says it.

    Raises:
        UserError: where none is, or a finished run has no such metric.
    """
    failed, curves = dict(failed or {}), dict[Cell, Points]()
    for cell, job in jobs.items():
        if not job.finished():
            if (reason := _failure(job)) is not None:
                failed.setdefault(cell.name, reason)
            continue
        points, end = curve(job, study.measure)
        if points[-1][0] < end:
            failed[cell.name] = (
                f"{study.measure} is not a finite number at step {end}; its last value is of step {points[-1][0]}"
            )
        else:
            curves[cell] = points
    missing = [cell.name for cell in jobs if cell not in curves and cell.name not in failed]
    if not curves:
        why = "".join(f"\n{name}: {shortened(reason)}" for name, reason in list(failed.items())[:3])
        raise UserError(
            f"no run of the study in {study.folder} is finished{why or '; run it without --report'}"
        )
    places: dict[tuple[str, float | None], dict[int, float]] = {}
    for cell, points in curves.items():
        places.setdefault((cell.arm, cell.at), {})[cell.seed] = points[-1][1]
    rows = [Row(arm, at, values) for (arm, at), values in places.items()]
    return Outcome(study, rows, curves, failed, missing)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, step by step; NaN stays NaN and counts for nothing."""
    known = sorted((p, place) for place, p in enumerate(values) if not math.isnan(p))
    corrected, largest = list(values), 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[place] = largest
    return corrected


def _failure(job: Job) -> str | None:
    """Why the run failed, as its folder says; None where it did not, or never began."""
    try:
        fate = job.folder.fate()
    except UserError:
        return None
    return fate if fate.startswith("failed") else None


def _listed(names: Sequence[str]) -> str:
    """The first ones, and how many more."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _number(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.4f}"
