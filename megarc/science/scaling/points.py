"""Points of a scaling fit: trained models, from a table or from runs."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megarc.errors import UserError

_FLOPS = 6.0  # a parameter and token, forward and backward, where a table has no FLOPs


@dataclass(frozen=True, slots=True)
class Point:
    """A trained model: its parameters N, the tokens D that it was trained on, FLOPs C, and its final loss."""

    name: str
    parameters: float
    tokens: float
    flops: float
    loss: float


def read_points(path: Path) -> list[Point]:
    """From comma-separated values with the columns parameters, loss, tokens or flops or both, and perhaps name.

    Where one of tokens D and flops C is missing, C = 6 N D gives it.

    Lines that begin with # are comments.

    Raises:
        UserError: for a missing column, or a value that is no number above 0; with its line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # spreadsheets begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the points in {path}: {error}") from None
    numbered = [
        (number, line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    names, *rows = [_cells(line, f"{path}, line {number}") for number, line in numbered] or [[]]
    columns = set(names)
    if not {"parameters", "loss"} <= columns or not {"tokens", "flops"} & columns:
        raise UserError(
            f"{path} needs the columns parameters, loss, and tokens or flops; it has {sorted(columns)}"
        )
    points = []
    for (number, _), cells in zip(numbered[1:], rows, strict=True):
        where = f"{path}, line {number}"
        if len(cells) > len(names):
            raise UserError(f"{where} has {len(cells)} values, and there are {len(names)} columns")
        row = dict(zip(names, cells, strict=False))
        n, loss = (_above_zero(row.get(name), where, name) for name in ("parameters", "loss"))
        known = {name: _above_zero(row[name], where, name) for name in ("tokens", "flops") if row.get(name)}
        if not known:
            raise UserError(f"{where} has neither tokens nor flops")
        d = known.get("tokens") or known["flops"] / _FLOPS / n
        points.append(
            Point(row.get("name") or f"line {number}", n, d, known.get("flops", _FLOPS * n * d), loss)
        )
    return points


def flops_factor(points: Sequence[Point]) -> tuple[float, float]:
    """``C / (N D)``: its geometric mean (6 by the usual rule), and the standard deviation of its logarithm."""
    logs = [math.log(point.flops / (point.parameters * point.tokens)) for point in points]
    mean = sum(logs) / len(logs)
    return math.exp(mean), math.sqrt(sum((value - mean) ** 2 for value in logs) / len(logs))


def _cells(line: str, where: str) -> list[str]:
    """The values of one line."""
    try:
        [cells] = csv.reader([line], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise UserError(f"{where} is no line of comma-separated values: {error}") from None
    return [cell.strip() for cell in cells]


def _above_zero(text: str | None, where: str, column: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{where}: {column} is {text!r}; it must be a number above 0")
    return value
