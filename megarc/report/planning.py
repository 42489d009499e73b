"""Pictures of a plan: step time and memory of each layout; time to train over numbers of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megarc.errors import UserError
from megarc.report.style import INK, PALETTE, new_figure, plain_axes, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAR = 4  # times a device's memory, beyond which a layout is not drawn


def layouts(points: Sequence[tuple[float, float, str, bool]], limit: float, path: Path) -> None:
    """Each layout's memory against its step, as PNG; its tensor and pipeline ranks by colour.

    Args:
        points: ``(GiB, seconds a step, "tensor x pipeline", whether it fits)``, best first.
        limit: GiB of a device.
    """
    if not points:
        raise UserError("no layout, so there is nothing to draw")
    figure = new_figure(9.5, 4.8)
    axes = figure.subplots()
    near = [point for point in points if point[0] <= _FAR * limit] or list(points)
    names = list(dict.fromkeys(name for _, _, name, fits in near if fits)) or [near[0][2]]
    colours = dict(zip(names, PALETTE, strict=False))
    for name in [*colours, None]:
        own = [point for point in near if (point[2] == name if name else point[2] not in colours)]
        for fits in (True, False):
            seen = [(gib, seconds) for gib, seconds, _, there in own if there == fits]
            if seen:
                look = {"marker": "o"} if fits else {"marker": "x", "alpha": 0.4}
                axes.plot(*zip(*seen, strict=True), linestyle="", color=colours.get(name or "", "#AAAAAA"),
                          markersize=4, label=(name or "others") if fits else None, **look)  # fmt: skip
    if near[0][3]:
        axes.annotate("fastest that fits", near[0][:2], (-6, -12), textcoords="offset points", color=INK,
                      fontsize=8, ha="right")  # fmt: skip
    axes.axvline(limit, color=INK, linewidth=0.8, linestyle="--")
    axes.text(limit, 0.99, f" {limit:.0f} GiB: a device", transform=axes.get_xaxis_transform(), color=INK,
              fontsize=8, va="top")  # fmt: skip
    left_out = len(points) - len(near)
    words = f"; {left_out} above {_FAR} times a device's memory left out" if left_out else ""
    _powers_of_two(axes)
    plain_axes(axes, f"Layouts: dots fit, crosses do not{words}", "GiB of the fullest rank", "seconds a step")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, title="tensor x pipeline", title_fontsize=8, loc="upper left",
                    bbox_to_anchor=(1.0, 1.0))  # fmt: skip
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
    _powers_of_two(axes)
    plain_axes(axes, "Time to train (dotted: in proportion to GPUs)", "GPUs", "days")
    save(figure, path)


def _powers_of_two(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.5g}")
    axes.yaxis.set_major_formatter("{x:,.4g}")
