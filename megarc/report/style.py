"""How every picture looks: one palette, few lines, labels at the curves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megarc.atomic_write import written_atomically
from megarc.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind eyes too (jfly.uni-koeln.de/color).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#333333", "#DDDDDD"


def new_figure(width: float, height: float) -> Figure:
    """A figure of ``width`` by ``height`` inches that draws without a display and without pyplot's state."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("pictures need matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes, title: str, across: str, up: str) -> None:
    """Title at the left, labelled axes, a faint grid, no box."""
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes each curve's name behind its last point: ``(x, y, name, colour)``, moved apart where they touch.

    Call it last: it reads the axes' limits.
    """
    low, high = axes.get_ylim()
    gap = 0.055 * (high - low)
    heights = spread([y for _, y, _, _ in ends], gap, low, high)
    for (x, y, name, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1.02, (height - low) / (high - low)),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6},
        )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """``wanted`` heights moved as little as need be, so that neighbours lie ``gap`` apart."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = list(wanted)
    for below, above in itertools.pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    # What was pushed above the top moves down again, and so do those beneath it.
    ceiling = max(high, low + gap * len(wanted))
    for which in reversed(order):
        placed[which] = min(placed[which], ceiling)
        ceiling = placed[which] - gap
    return placed


def save(figure: Figure, path: Path) -> None:
    """Writes the PNG.

    Raises:
        UserError: where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as file:
            figure.savefig(file, dpi=150, format="png", facecolor="white")
    except OSError as error:
        raise UserError(f"the picture {path} cannot be written: {error}") from None
