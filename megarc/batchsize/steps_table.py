"""A table of batches and the steps that they took to one loss: read, checked, put in order."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megarc.errors import UserError

_FEWEST_SIZES = 4
_NEVER = {"", "-", "never", "none", "null", "nan", "inf", "infinity"}


@dataclass(frozen=True, slots=True)
class StepsTable:
    """``steps[i]`` optimizer steps of batch ``batches[i]`` reach one target loss; both [points], by batch.

    A batch may stand in it several times: once a seed.
    """

    batches: list[float]
    steps: list[float]

    @classmethod
    def of(
        cls, points: Iterable[tuple[float, float | None]], *, place: str, tolerance: float = 0.0
    ) -> StepsTable:
        """Checks ``(batch, steps)``; steps of None never reached the target.

        Args:
            place: names the table in errors.
            tolerance: the share by which the steps of a larger batch may exceed a smaller one's.

        Raises:
            UserError: for fewer than four sizes, a target not reached, steps that rise with the batch.
        """
        listed = sorted(points, key=lambda point: point[0])
        for batch, steps in listed:
            if not (math.isfinite(batch) and batch > 0):
                raise UserError(f"{place}: batch {batch:g} is not a batch size; a batch size is above 0")
            if steps is not None and not (math.isfinite(steps) and steps > 0):
                raise UserError(f"{place}: batch {batch:g} has {steps:g} steps; steps are above 0")
        _check_reached(listed, place)
        table = cls([batch for batch, _ in listed], [steps for _, steps in listed if steps is not None])
        _check_sizes(table, place)
        _check_falls(table, place, tolerance)
        return table

    def means(self) -> list[tuple[float, float]]:
        """Each size once, with the geometric mean of its steps."""
        logs: dict[float, list[float]] = {}
        for batch, steps in zip(self.batches, self.steps, strict=True):
            logs.setdefault(batch, []).append(math.log(steps))
        return [(batch, math.exp(sum(found) / len(found))) for batch, found in logs.items()]


def read_steps(path: Path, tolerance: float = 0.0) -> StepsTable:
    """The table of a CSV file with the columns ``batch`` and ``steps``; others are passed over.

    Empty steps (or ``never``) say that this run did not reach the target loss.

    Raises:
        UserError: where the file is none, or its numbers allow no fit.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, skipinitialspace=True))
    except FileNotFoundError:
        raise UserError(f"no such table: {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the table {path}: {error}") from None
    rows = [[cell.strip() for cell in row] for row in rows]
    filled = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    if not filled:
        raise UserError(f"{path} is empty; its first line must be 'batch,steps', then one line for each run")
    header = [cell.lower() for cell in filled[0][1]]
    if not {"batch", "steps"} <= set(header):
        found = ",".join(filled[0][1])
        raise UserError(f"{path}: the first line is '{found}'; it must name the columns batch and steps")
    batch, steps = header.index("batch"), header.index("steps")
    points = []
    for line, row in filled[1:]:
        if len(row) <= max(batch, steps):
            raise UserError(f"{path}, line {line}: {len(row)} cells, but the first line names {len(header)}")
        size = _number(row[batch], f"{path}, line {line}, batch")
        never = row[steps].lower() in _NEVER
        points.append((size, None if never else _number(row[steps], f"{path}, line {line}, steps")))
    return StepsTable.of(points, place=str(path), tolerance=tolerance)


def _number(text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{place}: {text!r} is not a number") from None


def _check_reached(points: Sequence[tuple[float, float | None]], place: str) -> None:
    missed = sorted({batch for batch, steps in points if steps is None})
    if missed:
        raise UserError(
            f"{place}: the target loss was never reached with batch {_listed(missed)}, so there is nothing "
            "to fit; train longer, choose a higher target, or leave these rows out if they diverged"
        )


def _check_sizes(table: StepsTable, place: str) -> None:
    sizes = sorted(set(table.batches))
    if len(sizes) < _FEWEST_SIZES:
        raise UserError(
            f"{place}: {len(sizes)} batch sizes ({_listed(sizes) or 'none'}); a fit of two numbers needs "
            f"{_FEWEST_SIZES} or more, spread over the bend; add runs at other sizes"
        )


def _check_falls(table: StepsTable, place: str, tolerance: float) -> None:
    """A larger batch takes as many steps or fewer: else noise, or a learning rate that does not fit."""
    means = table.means()
    least_batch, least = means[0]
    for batch, steps in means[1:]:
        if steps > least * (1 + tolerance + 1e-9):
            raise UserError(
                f"{place}: steps rise from {least:g} at batch {least_batch:g} to {steps:g} at {batch:g}, and "
                "no batch can need more steps than a smaller one if each has its best learning rate; tune "
                f"that run, average more seeds, or allow it with --tolerance {_allowance(steps / least)}"
            )
        if steps <= least:
            least_batch, least = batch, steps
    if means[-1][1] >= means[0][1]:
        raise UserError(
            f"{place}: steps do not fall from batch {means[0][0]:g} to {means[-1][0]:g}: all of these sizes "
            "lie beyond the critical batch; add smaller ones"
        )


def _allowance(ratio: float) -> float:
    return math.ceil((ratio - 1) * 100 - 1e-9) / 100


def _listed(sizes: Sequence[float]) -> str:
    return ", ".join(f"{size:g}" for size in sizes)
