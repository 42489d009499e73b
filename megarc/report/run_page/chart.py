"""Line charts as inline SVG: no script, no font or file from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate

from megarc.progress import human
from megarc.report.style import FAINT, INK

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 82, 16, 14, 42
_MOST_POINTS = 500

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points ``(x, y)`` in ascending x, drawn as a line, or as dots."""

    name: str
    points: Points
    colour: str
    dots: bool = False
    faint: bool = False


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    log: bool
    first: float
    last: float

    def place(self, value: float) -> float:
        low, high = (math.log10(end) if self.log else end for end in (self.low, self.high))
        share = ((math.log10(value) if self.log else value) - low) / (high - low)
        return self.first + share * (self.last - self.first)

    def ticks(self) -> list[float]:
        if not self.log or self.high < 10 * self.low:
            return _round_numbers(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        few = len(powers) < 4
        steps = (1, 2, 5) if few else (1,)
        every = max(1, len(powers) // 8)
        found = [step * 10.0**power for power in powers[::every] for step in steps]
        return [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]


def line_chart(
    curves: Sequence[Curve],
    across: str,
    up: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """The curves as an ``<svg>``; the empty string where there is no point to draw.

    Args:
        marks: vertical lines ``(x, words)``, a restart for instance.
    """
    kept = [_usable(curve, log_x, log_y) for curve in curves]
    kept = [curve for curve in kept if curve.points]
    if not kept:
        return ""
    x = _axis([px for curve in kept for px, _ in curve.points], log_x, _LEFT, _WIDTH - _RIGHT, 0.0)
    y = _axis([py for curve in kept for _, py in curve.points], log_y, _HEIGHT - _BOTTOM, _TOP, 0.05)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{up} against {across}")}">',
        *_grid(x, y),
        *(_mark(x, value, words) for value, words in marks if x.low <= value <= x.high),
        *(_drawn(curve, x, y) for curve in kept),
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>',
        f'<text x="13" y="{(_HEIGHT - _BOTTOM) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 13 {(_HEIGHT - _BOTTOM) / 2})">{escape(up)}</text>',
        "</svg>",
    ]
    return "".join(parts)


def smoothed(points: Points, share: float = 0.05) -> list[tuple[float, float]]:
    """A centred mean over ``share`` of the points; at the ends over those that are there."""
    reach = int(len(points) * share / 2)
    before = list(accumulate((y for _, y in points), initial=0.0))  # a run may have 100,000 lines
    found = []
    for middle, (x, _) in enumerate(points):
        first, end = max(0, middle - reach), min(len(points), middle + reach + 1)
        found.append((x, (before[end] - before[first]) / (end - first)))
    return found


def _usable(curve: Curve, log_x: bool, log_y: bool) -> Curve:
    """Without what cannot be drawn, and with fewer points than pixels."""
    points = [
        (x, y)
        for x, y in curve.points
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)
    ]
    step = -(-len(points) // _MOST_POINTS)
    if step > 1:
        points = points[: len(points) - 1 : step] + points[-1:]
    return Curve(curve.name, points, curve.colour, curve.dots, curve.faint)


def _axis(values: Sequence[float], log: bool, first: float, last: float, margin: float) -> _Axis:
    low, high = min(values), max(values)
    if log:
        low, high = (low / 1.2, high * 1.2) if low == high else (low * 0.95, high * 1.05)
        return _Axis(low, high, True, first, last)
    spare = margin * (high - low) or (abs(high) * 0.05 or 0.5 if low == high else 0.0)
    return _Axis(low - spare, high + spare, False, first, last)


def _round_numbers(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _grid(x: _Axis, y: _Axis) -> list[str]:
    parts = []
    bottom = _HEIGHT - _BOTTOM
    for value in x.ticks():
        at = x.place(value)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}" stroke="{FAINT}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{_label(value)}</text>')
    for value in y.ticks():
        at = y.place(value)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{FAINT}"/>'
        )
        parts.append(f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{_label(value)}</text>')
    parts.append(f'<path d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}" fill="none" stroke="{INK}"/>')
    return parts


def _label(value: float) -> str:
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return human(value) if 1e4 <= abs(value) < 1e15 else f"{value:.2g}"


def _mark(x: _Axis, value: float, words: str) -> str:
    at = x.place(value)
    return (
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{INK}" '
        f'stroke-dasharray="3 3"><title>{escape(words)}</title></line>'
    )


def _drawn(curve: Curve, x: _Axis, y: _Axis) -> str:
    places = [(x.place(px), y.place(py)) for px, py in curve.points]
    title = f"<title>{escape(curve.name)}</title>"
    if curve.dots or len(places) == 1:
        dots = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.2"/>' for px, py in places)
        return f'<g fill="{curve.colour}" stroke="white">{title}{dots}</g>'
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in places)
    look = 'stroke-width="0.8" opacity="0.35"' if curve.faint else 'stroke-width="1.7"'
    return f'<path d="{path}" fill="none" stroke="{curve.colour}" {look}>{title}</path>'
