"""Mean |activation| against width and depth, by layer and step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from megarc.report.style import PALETTE, new_figure, plain_axes, save

Curves = Mapping[str, Mapping[int, Sequence[tuple[int, float]]]]
"""layer -> step -> points (width or depth, mean |activation|)."""


def coordinate_picture(rows: Mapping[str, Curves], across: str, path: Path) -> None:
    """A row of pictures for each parametrization, one a layer; later steps are darker.

    Args:
        across: what the points' first number is: ``width`` or ``depth``.
    """
    layers = list(next(iter(rows.values())))
    figure = new_figure(2.6 * len(layers), 2.4 * len(rows))
    grid = figure.subplots(len(rows), len(layers), squeeze=False, sharex=True, sharey="col")
    for line, ((name, curves), colour) in enumerate(zip(rows.items(), PALETTE, strict=False)):
        for axes, layer in zip(grid[line], layers, strict=True):
            steps = sorted(curves[layer])
            for step in steps:
                x, y = zip(*sorted(curves[layer][step]), strict=True)
                alpha = 0.25 + 0.75 * step / max(1, steps[-1])
                axes.plot(x, y, "-o", color=colour, alpha=alpha, linewidth=1.2, markersize=3)
            plain_axes(axes, f"{name}: {layer}", across if line == len(rows) - 1 else "", "")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
    save(figure, path)
