"""Pictures of a plan: step time and memory of each layout; time to train over numbers of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megarc.errors import UserError
from megarc.report.style import INK, PALETTE, new_figure, plain_axes, save


def layouts(points: Sequence[tuple[float, float, str, bool]], limit: float, path: Path) -> None:
    """Each layout's memory against its step, as PNG; its tensor and pipeline ranks by colour.

    Args:
        points: ``(GiB, seconds a step, "tensor x pipeline", whether it fits)``, best first.
        limit: GiB of a device.
    """
    if not points:
        raise UserError("no layout, so there is nothing to draw")
    figure = new_figure(8.5, 4.8)
    axes = figure.subplots()
    names = list(dict.fromkeys(name for _, _, name, fits in points if fits)) or [points[0][2]]
    colours = dict(zip(names, PALETTE, strict=False))
    for name in [*colours, None]:
        own = [point for point in points if (point[2] == name if name else point[2] not in colours)]
        if not own:
            continue
        colour = colours.get(name or "", "#AAAAAA")
        for fits in (True, False):
            seen = [(gib, seconds) for gib, seconds, _, there in own if there == fits]
            if seen:
                axes.plot(*zip(*seen, strict=True), "o" if fits else "x", color=colour, markersize=4,
                          label=(name or "others") if fits else None)  # fmt: skip
    axes.axvline(limit, color=INK, linewidth=0.8, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:.3g}")
    plain_axes(axes, "Layouts: dots fit, crosses do not", "GiB of the fullest rank", "seconds a step")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, title="tensor x pipeline", loc="upper right")
    save(figure, path)


def time_to_train(points: Sequence[tuple[int, float, int]], knee: float | None, path: Path) -> None:
    """Days to the run's length over numbers of GPUs, as PNG, beside what GPUs alone would buy.

    Args:
        points: ``(GPUs, days, batch)``.
        knee: the number of GPUs from which the batch is beyond the critical one.
    """
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    gpus, days, _ = zip(*points, strict=True)
    axes.plot(gpus, days, "-o", color=PALETTE[0], markersize=5)
    axes.plot(gpus, [days[0] * gpus[0] / count for count in gpus], ":", color=INK, linewidth=0.9)
    for count, time, size in points:
        axes.annotate(
            f"batch {size}", (count, time), (4, 6), textcoords="offset points", color=INK, fontsize=8
        )
    if knee is not None:
        axes.axvline(knee, color=PALETTE[1], linewidth=1, linestyle="--")
        axes.text(knee, max(days), " beyond the critical batch", color=PALETTE[1], va="top")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:.3g}")
    plain_axes(axes, "Time to train (dotted: in proportion to GPUs)", "GPUs", "days")
    save(figure, path)
