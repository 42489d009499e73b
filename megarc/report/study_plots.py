"""A study's measure by size and by step, an arm a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from megarc.errors import UserError
from megarc.report.style import INK, PALETTE, label_ends, new_figure, plain_axes, save

Spread = Sequence[tuple[float, float, float]]
"""Points ``(x, mean, standard error)``; an error that is not known is NaN."""


def measure_by(
    curves: Mapping[str, Spread],
    path: Path,
    *,
    title: str,
    across: str,
    measure: str,
    chance: float | None = None,
    doubling: bool = False,
) -> None:
    """One line an arm with its standard errors, as PNG.

    Args:
        chance: a dotted line at this height.
        doubling: whether x is drawn in powers of 2.

    Raises:
        UserError: where there is no curve, or there are more than colours.
    """
    if not curves or len(curves) > len(PALETTE):
        raise UserError(f"a picture of a study takes 1 to {len(PALETTE)} arms; it has {len(curves)}")
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    ends = []
    for (name, points), colour in zip(curves.items(), PALETTE, strict=False):
        x, mean, error = zip(*sorted(points), strict=True)
        axes.errorbar(x, mean, error, color=colour, linewidth=1.6, marker="o", markersize=4, capsize=2)
        ends.append((x[-1], mean[-1], name, colour))
    if chance is not None:
        axes.axhline(chance, color=INK, linewidth=0.8, linestyle=":")
    plain_axes(axes, title, across, measure)
    if doubling:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    label_ends(axes, ends)
    save(figure, path)
