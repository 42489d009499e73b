"""Scaling fits as a picture: isoFLOP curves, and the loss over compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megarc.progress import human
from megarc.report.style import INK, PALETTE, new_figure, plain_axes, save

_CURVES = 12  # budgets at most
_PLACES = 60


@dataclass(frozen=True, slots=True)
class ScalingPicture:
    """What is drawn.

    Attributes:
        budgets: of each budget its FLOPs, sizes and losses, and the best size by its parabola (None: unknown).
        predicted: the surface's loss of ``(flops, parameters)``.
        compute: every point's FLOPs and loss.
        lowest: L(C) of the best allocation at some FLOPs.
        band: the same, lower and upper end of its interval.
        unit: of the loss.
    """

    budgets: Sequence[tuple[float, Sequence[float], Sequence[float], float | None]]
    predicted: Callable[[float, float], float]
    compute: Sequence[tuple[float, float]]
    lowest: Callable[[float], float]
    band: Callable[[float], tuple[float, float]]
    unit: str


def scaling(picture: ScalingPicture, path: Path) -> None:
    """Two panels as PNG: loss over size at each budget (lines: the surface), and loss over compute."""
    figure = new_figure(12, 4.8)
    left, right = figure.subplots(1, 2)
    step = max(1, -(-len(picture.budgets) // _CURVES))
    for place, (flops, sizes, losses, best) in enumerate(picture.budgets[::step]):
        colour = PALETTE[place % len(PALETTE)]
        left.plot(sizes, losses, "o", color=colour, markersize=4, label=f"{human_flops(flops)}")
        across = np.geomspace(min(sizes), max(sizes), _PLACES)
        left.plot(across, [picture.predicted(flops, n) for n in across], color=colour, linewidth=1)
        if best is not None:
            left.axvline(best, color=colour, linewidth=0.6, linestyle=":")
    plain_axes(
        left, "Loss at equal FLOPs; lines: L(N, D), dotted: parabola's minimum", "parameters", picture.unit
    )
    left.set_xscale("log")
    left.xaxis.set_major_formatter(lambda value, _: human(value))
    if picture.budgets:
        left.legend(title="FLOPs", fontsize=7, title_fontsize=8, frameon=False)
    spent, reached = zip(*picture.compute, strict=True)
    right.plot(spent, reached, "o", color=INK, alpha=0.35, markersize=3)
    across = np.geomspace(min(spent), 10 * max(spent), _PLACES)
    right.plot(across, [picture.lowest(c) for c in across], color=PALETTE[0], linewidth=1.6)
    low, high = zip(*(picture.band(c) for c in across), strict=True)
    right.fill_between(across, low, high, color=PALETTE[0], alpha=0.2, linewidth=0)
    plain_axes(right, "Loss of the best N and D; shaded: 95 % of resampled fits", "FLOPs", picture.unit)
    right.set_xscale("log")
    save(figure, path)


def human_flops(flops: float) -> str:
    """6e18 as it is written in papers."""
    return f"{flops:.1e}".replace("e+", "e")
