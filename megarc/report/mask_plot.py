"""The mask of a window, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megarc.report.style import INK, new_figure, save
from megarc.window import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Corner = tuple[float, float]

_R_SEES_R, _C_SEES_R, _C_SEES_C, _LOSS = "#56B4E9", "#A6D5F2", "#F0B98D", "#D55E00"
_HIDDEN = "#F4F4F4"
_GRID_UP_TO = 48  # rows: more, and a grid would be all that one sees
_NAMED_FROM = 0.12  # share of the side: less, and a region's name would not fit


def mask_picture(window: Window, path: Path) -> None:
    """Who sees whom in ``window``, which rows are R and C, and which bear loss, as PNG."""
    figure = new_figure(6.4, 6.0)
    axes = figure.subplots()
    n, r = window.rows, window.recent
    _fill(axes, [(0, 0), (n, 0), (n, n), (0, n)], _HIDDEN)
    for corners, colour in seen_regions(window):
        _fill(axes, corners, colour)
    if n <= _GRID_UP_TO:
        for line in range(n + 1):
            axes.plot([0, n], [line, line], color="white", linewidth=0.8)
            axes.plot([line, line], [0, n], color="white", linewidth=0.8)
    _names(axes, window)
    _brackets(axes, window)
    ticks = _apart({0, r, n - window.stride, n}, n)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.set_xlim(0, 1.14 * n)
    axes.set_ylim(n, -0.09 * n)
    axes.set_aspect("equal")
    axes.set_xlabel("row that is seen (key)", color=INK, loc="left")
    axes.set_ylabel("row that looks (query)", color=INK, loc="bottom")
    axes.set_title(f"{window}", loc="left", color=INK, fontsize=12)
    axes.tick_params(colors=INK, length=3)
    for side in axes.spines.values():
        side.set_visible(False)
    save(figure, path)


def seen_regions(window: Window) -> list[tuple[list[Corner], str]]:
    """Corners ``(key, query)`` and colour of each region of allowed pairs: row i is the square i .. i+1."""
    n, r = window.rows, window.recent
    within_c = (_staircase(r, n), _C_SEES_C)
    if r == 0:
        return [within_c]
    within_r: list[Corner] = [(0, 0), (r, 0), (r, r), (0, r)]
    across: list[Corner] = [(0, r), (r, r), (r, n), (0, n)]
    return [(within_r, _R_SEES_R), (across, _C_SEES_R), within_c]


def _fill(axes: Axes, corners: list[Corner], colour: str) -> None:
    from matplotlib.patches import Polygon

    axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor="none"))


def _staircase(first: int, stop: int) -> list[Corner]:
    """Corners of what rows first .. stop-1 see of each other: row i up to and with itself."""
    corners: list[Corner] = [(first, first)]
    for row in range(first, stop):
        corners += [(row + 1, row), (row + 1, row + 1)]
    return [*corners, (first, stop)]


def _names(axes: Axes, window: Window) -> None:
    """Says what each region is, where there is room."""
    n, r, c = window.rows, window.recent, window.causal
    regions = [
        (r / 2, r / 2, r, "R sees\nall of R", _R_SEES_R),
        (r / 2, r + c / 2, min(r, c), "C sees\nall of R", _C_SEES_R),
        (r + c / 3, r + 2 * c / 3, 0.6 * c, "C sees C\nup to itself", _C_SEES_C),
        (r + 2 * c / 3, r + c / 3, 0.6 * c, "not seen", _HIDDEN),
    ]
    for x, y, side, text, behind in regions:
        if side >= _NAMED_FROM * n:
            colour = "#8A8A8A" if behind == _HIDDEN else INK
            size = 11 if side >= 2 * _NAMED_FROM * n else 8
            box = {"facecolor": behind, "edgecolor": "none", "pad": 1.5}  # over the grid
            axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=size, bbox=box)


def _brackets(axes: Axes, window: Window) -> None:
    """R and C along the top; the rows that bear loss at the right."""
    n, r = window.rows, window.recent
    for name, left, right, colour in (("R", 0, r, _R_SEES_R), ("C", r, n, _C_SEES_C)):
        if right > left:
            axes.plot([left, right], [-0.025 * n] * 2, color=colour, linewidth=4, solid_capstyle="butt")
            words = {"R": f"R, {r} recent", "C": f"C, {n - r} causal"}[name]
            axes.text((left + right) / 2, -0.045 * n, words, ha="center", va="bottom", color=INK)
    rows = window.loss_rows
    axes.plot([1.03 * n] * 2, [rows.start, rows.stop], color=_LOSS, linewidth=4, solid_capstyle="butt")
    axes.text(
        1.06 * n,
        (rows.start + rows.stop) / 2,
        f"{window.stride} loss row{'s' * (window.stride > 1)}",
        rotation=270,
        ha="left",
        va="center",
        color=_LOSS,
    )


def _apart(ticks: set[int], rows: int) -> list[int]:
    """``ticks`` without those whose numbers would run into the one before."""
    kept: list[int] = []
    for tick in sorted(ticks):
        if not kept or tick - kept[-1] >= 0.04 * rows:
            kept.append(tick)
    return kept
