"""Pictures of batch studies: speed and memory by micro-batch, loss by batch, steps to a loss by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megarc.errors import UserError
from megarc.report.style import INK, PALETTE, new_figure, plain_axes, save

_GIB = 2**30


def micro_batches(
    curves: Mapping[str, Sequence[tuple[int, float, float]]],
    knee: tuple[str, int] | None,
    limit: float | None,
    path: Path,
) -> None:
    """Tokens/s and memory of each micro-batch, as PNG.

    Args:
        curves: a setting of recomputation -> ``(size, predicted tokens/s, bytes)``.
        knee: the setting and size that is taken, marked.
        limit: bytes that a rank may use, drawn as a line.
    """
    if not any(curves.values()):
        raise UserError("no micro-batch fits, so there is nothing to draw")
    figure = new_figure(10, 4.2)
    speed, memory = figure.subplots(1, 2)
    for (name, points), colour in zip(curves.items(), PALETTE, strict=False):
        if not points:
            continue
        sizes, rates, held = zip(*sorted(points), strict=True)
        speed.plot(sizes, rates, "-o", color=colour, markersize=4, label=f"recompute: {name}")
        memory.plot(sizes, [size / _GIB for size in held], "-o", color=colour, markersize=4)
        if knee is not None and knee[0] == name:
            rate = dict(zip(sizes, rates, strict=True))[knee[1]]
            speed.plot([knee[1]], [rate], "o", markersize=13, fillstyle="none", color=INK)
            speed.annotate(f"taken: {knee[1]}", (knee[1], rate), (0, -20), textcoords="offset points",
                           color=INK, ha="center")  # fmt: skip
    if limit is not None and limit / _GIB < 4 * memory.get_ylim()[1]:
        memory.axhline(limit / _GIB, color=INK, linewidth=0.8, linestyle="--")
        memory.text(1, limit / _GIB, "limit", va="bottom", color=INK)
    plain_axes(speed, "Speed of a rank", "micro-batch, samples", "predicted tokens / s")
    plain_axes(memory, "Memory of a rank", "micro-batch, samples", "GiB, at most")
    for axes in (speed, memory):
        _by_doubling(axes)
        axes.set_ylim(bottom=0)
    speed.legend(frameon=False, loc="lower right")
    save(figure, path)


def branches(losses: Mapping[float, float], size: int, critical: float, tolerance: float, path: Path) -> None:
    """Smoothed loss at the end of each branch against its batch, with the decision, as PNG."""
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    sizes = [multiple * size for multiple in losses]
    axes.plot(sizes, list(losses.values()), "-o", color=PALETTE[0], markersize=5)
    best = min(loss for multiple, loss in losses.items() if multiple <= critical)
    axes.axhspan(best, best + tolerance, color=PALETTE[0], alpha=0.12, linewidth=0)
    axes.axvline(critical * size, color=PALETTE[1], linewidth=1)
    axes.annotate(f"critical: {critical * size:g}", (critical * size, max(losses.values())), (6, -4),
                  textcoords="offset points", color=PALETTE[1])  # fmt: skip
    title = f"Branches over the same samples; the band is the best plus {tolerance:g}"
    plain_axes(axes, title, "batch, samples", "nats / token, smoothed")
    _by_doubling(axes)
    save(figure, path)


@dataclass(frozen=True, slots=True)
class StepsPicture:
    """What is drawn of steps to a loss.

    Attributes:
        points: ``(batch, steps)`` of each run.
        line: ``(batch, steps)`` of the fit.
        linear: ``(batch, steps)`` of linear scaling from the optimal batch.
        critical: the critical batch and its interval; None: there is no fit.
        noise: batch -> noise scale in samples, measured on the way.
        target: nats a token.
    """

    points: Sequence[tuple[float, float]]
    line: Sequence[tuple[float, float]]
    linear: Sequence[tuple[float, float]]
    critical: tuple[float, float, float] | None
    noise: Sequence[tuple[float, float]]
    target: float


def steps_to_loss(picture: StepsPicture, path: Path) -> None:
    """Steps to a loss against the batch, and the noise scale beside it, as PNG."""
    figure = new_figure(10 if picture.noise else 7, 4.4)
    axes, *beside = figure.subplots(1, 2 if picture.noise else 1, squeeze=False)[0]
    for curve, style, colour, name in (
        (picture.points, "o", PALETTE[0], "runs"),
        (picture.line, "-", PALETTE[0], "a + b / batch"),
        (picture.linear, "--", PALETTE[2], "linear scaling"),
    ):
        if curve:
            axes.plot(*zip(*curve, strict=True), style, color=colour, markersize=4, label=name)
    if picture.critical is not None:
        batch, low, high = picture.critical
        axes.axvline(batch, color=PALETTE[1], linewidth=1, label=f"critical batch {batch:.0f}")
        axes.axvspan(low, min(high, 4 * max(x for x, _ in picture.points)), color=PALETTE[1], alpha=0.12)
    plain_axes(axes, f"Steps to {picture.target:.3g} nats / token", "batch, samples", "steps")
    axes.set_yscale("log")
    _by_doubling(axes)
    axes.legend(frameon=False)
    for other in beside:
        other.plot(
            *zip(*picture.noise, strict=True), "o", color=PALETTE[3], markersize=4, label="noise scale"
        )
        sizes = sorted({batch for batch, _ in picture.noise})
        other.plot(sizes, sizes, ":", color=INK, linewidth=0.8, label="the batch itself")
        if picture.critical is not None:
            other.axhline(picture.critical[0], color=PALETTE[1], linewidth=1, label="critical batch")
        plain_axes(other, "Noise scale up to the target", "batch, samples", "samples")
        other.set_yscale("log")
        _by_doubling(other)
        other.legend(frameon=False)
    save(figure, path)


def _by_doubling(axes: Any) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
