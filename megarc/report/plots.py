"""Curves of runs: loss while training, loss against the context that a prediction sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from megarc.errors import UserError
from megarc.report.style import PALETTE, label_ends, new_figure, plain_axes, save

_SMOOTHED_OVER = 0.05  # of the curve's points: what the bold line averages over
_MOST_CURVES = len(PALETTE)

Points = list[tuple[float, float]]


def loss_curves(runs: Mapping[str, Path], path: Path, *, against: str = "processed_tokens") -> None:
    """Training loss (line) and held-out loss (dots) of each run, as PNG.

    Args:
        runs: the name that a curve bears -> the run's ``metrics.jsonl``.
        against: the counter along the x axis: ``processed_tokens`` (what a step costs),
            ``predicted_tokens`` (how many loss terms) or ``step``.

    Raises:
        UserError: where there is nothing to draw, or too much for one picture.
    """
    curves = {name: read_curves(metrics, against) for name, metrics in runs.items()}
    _check(curves)
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    ends = []
    for (name, (train, heldout)), colour in zip(curves.items(), PALETTE, strict=False):
        if train:
            x, y = zip(*train, strict=True)
            axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.3)
            axes.plot(x, _smooth(y), color=colour, linewidth=1.6)
        if heldout:
            x, y = zip(*heldout, strict=True)
            axes.plot(x, y, "o", color=colour, markersize=5, markeredgecolor="white")
        ends.append((*(heldout or train)[-1], name, colour))
    plain_axes(axes, "Loss: line training, dots held-out", against.replace("_", " "), "nats / token")
    _cut_start(axes, curves)
    axes.xaxis.set_major_formatter(_human)
    label_ends(axes, ends)
    save(figure, path)


def loss_by_context(curves: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Held-out loss against how many tokens a prediction sees, as PNG.

    Args:
        curves: name -> points ``(visible tokens on average, nats a token)``; the same targets in all.
    """
    if not curves or not all(curves.values()) or len(curves) > _MOST_CURVES:
        raise UserError(f"loss against context needs 1 to {_MOST_CURVES} curves, each with a point or more")
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    ends = []
    for (name, points), colour in zip(curves.items(), PALETTE, strict=False):
        x, y = zip(*sorted(points), strict=True)
        axes.plot(x, y, "-o", color=colour, linewidth=1.6, markersize=5, markeredgecolor="white")
        ends.append((x[-1], y[-1], name, colour))
    plain_axes(
        axes,
        "What context is worth: the same held-out tokens, windows of growing length",
        "tokens that a prediction sees, on average",
        "nats / token",
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(_human)
    label_ends(axes, ends)
    save(figure, path)


def gain_by_distance(curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """How far one model is ahead of others at each token after the boundary, as PNG.

    Args:
        curves: name of the other -> nats ahead at the first, second, ... token [c]; NaN where none is a target.
    """
    known = all(any(map(math.isfinite, gains)) for gains in curves.values())
    if not curves or not known or len(curves) > _MOST_CURVES:
        raise UserError(f"gains need 1 to {_MOST_CURVES} curves, each with a point or more")
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    ends = []
    for (name, gains), colour in zip(curves.items(), PALETTE, strict=False):
        points = [(place, gain) for place, gain in enumerate(gains, start=1) if math.isfinite(gain)]
        distance, ahead = zip(*points, strict=True)
        axes.plot(distance, ahead, "-o", color=colour, linewidth=1.4, markersize=3.5)
        ends.append((distance[-1], ahead[-1], name, colour))
    axes.axhline(0, color="#333333", linewidth=0.8)
    plain_axes(
        axes, "What roll-outs gain, against each control", "tokens from the boundary", "nats / token ahead"
    )
    label_ends(axes, ends)
    save(figure, path)


def read_curves(metrics: Path, against: str) -> tuple[Points, Points]:
    """Training and held-out points ``(counter, nats a token)`` of a ``metrics.jsonl``.

    A last line that is half written (the run is still going on) is passed over.

    Raises:
        UserError: where the file cannot be read, or has no such counter.
    """
    try:
        lines = metrics.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"no metrics at {metrics}: {error.strerror}; is it a run's metrics.jsonl?") from None
    train: Points = []
    heldout: Points = []
    for number, line in enumerate(lines, start=1):
        try:
            entry: dict[str, Any] = orjson.loads(line)
            x = entry[against]
        except orjson.JSONDecodeError:
            if number == len(lines):
                continue
            raise UserError(f"{metrics}, line {number}, is not JSON; remove the line") from None
        except KeyError:
            raise UserError(f"{metrics}, line {number}, has no '{against}'") from None
        if "train/nats_per_token" in entry:
            train.append((x, entry["train/nats_per_token"]))
        if "heldout/nats_per_token" in entry:
            heldout.append((x, entry["heldout/nats_per_token"]))
    return train, heldout


def _check(curves: Mapping[str, tuple[Points, Points]]) -> None:
    if not 1 <= len(curves) <= _MOST_CURVES:
        raise UserError(f"{len(curves)} runs in one picture; give 1 to {_MOST_CURVES}")
    for name, (train, heldout) in curves.items():
        if not train and not heldout:
            raise UserError(f"the run {name} has logged no loss yet")


def _smooth(values: Sequence[float]) -> list[float]:
    """A centred mean over a twentieth of the points; at the ends over those that are there."""
    reach = int(len(values) * _SMOOTHED_OVER / 2)
    parts = [values[max(0, middle - reach) : middle + reach + 1] for middle in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def _cut_start(axes: Any, curves: Mapping[str, tuple[Points, Points]]) -> None:
    """Leaves the first fall from log(vocabulary) out of the picture: it would flatten all the rest."""
    losses = sorted(y for train, heldout in curves.values() for _, y in train[len(train) // 20 :] + heldout)
    low, high = losses[0], losses[int(0.98 * (len(losses) - 1))]
    margin = 0.06 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)


def _human(value: float, _position: float) -> str:
    """12000000 as ``12M``, for an axis."""
    from megarc.progress import human

    return human(value)
