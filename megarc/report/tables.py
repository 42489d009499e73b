"""Tables for the terminal and for documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Align = Literal["<", ">"]


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, markdown: bool = False) -> str:
    """``rows`` under ``columns``, as lines of text; a column of numbers stands at the right.

    Cells are shown by ``str``, None as ``-``. Format numbers before: a table cannot know how exact they are.
    """
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    for row in cells:
        if len(row) != len(columns):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(columns)} columns: {row}")
    if markdown:
        cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    least = 2 if markdown else 0  # a rule of one ":" is not one that Markdown knows
    widths = [max(least, *map(len, column)) for column in zip(columns, *cells, strict=True)]
    aligned = [_alignment([row[place] for row in cells]) for place in range(len(columns))]
    lines = [_line(row, widths, aligned, markdown) for row in [list(columns), *cells]]
    lines.insert(1, _rule(widths, aligned, markdown))
    return "\n".join(line.rstrip() for line in lines)


def _alignment(cells: Sequence[str]) -> Align:
    """Right where every cell that is there is a number."""
    present = [cell for cell in cells if cell != "-"]
    return ">" if present and all(map(_is_number, present)) else "<"


def _is_number(cell: str) -> bool:
    first = cell.replace(",", "").split(" ")[0].rstrip("%kMGTB")
    try:
        float(first)
    except ValueError:
        return False
    return True


def _line(row: Sequence[str], widths: Sequence[int], aligned: Sequence[Align], markdown: bool) -> str:
    cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)]
    return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells)


def _rule(widths: Sequence[int], aligned: Sequence[Align], markdown: bool) -> str:
    if not markdown:
        return "  ".join("-" * width for width in widths)
    marks = ["-" * (w - 1) + (":" if side == ">" else "-") for w, side in zip(widths, aligned, strict=True)]
    return f"| {' | '.join(marks)} |"
