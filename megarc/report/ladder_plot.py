"""The ladder of losses in the talk's form: patterns found, and how many choices are left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from megarc.report.style import FAINT, INK, PALETTE, new_figure, plain_axes, save

_COLOURS = {"uniform": INK, "ngram": PALETTE[0], "compressor": PALETTE[4], "model": PALETTE[2]}


class LadderRow(Protocol):
    """What the plot reads of a row."""

    @property
    def name(self) -> str: ...
    @property
    def pattern(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def bits_per_token(self) -> float: ...
    @property
    def standard_error(self) -> float | None: ...


class LadderLine(Protocol):
    """A figure of somebody else, or an interval of them, in bits a token."""

    @property
    def name(self) -> str: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def ladder(
    rows: Sequence[LadderRow], references: Sequence[LadderLine], human: LadderLine | None, path: Path
) -> None:
    """The rows from the highest loss down, with the talk's figures and what people reach, as PNG.

    Args:
        references: dashed lines.
        human: a shaded interval; None where the bytes of a token are unknown.
    """
    ordered = sorted(rows, key=lambda row: -row.bits_per_token)
    figure = new_figure(9.5, 1.8 + 0.3 * len(ordered))
    axes = figure.subplots()
    for height, row in enumerate(reversed(ordered)):
        colour = _COLOURS.get(row.kind, INK)
        axes.barh(height, row.bits_per_token, height=0.62, color=colour, alpha=0.85)
        axes.text(
            row.bits_per_token, height, f" {row.bits_per_token:.2f}", va="center", fontsize=8, color=INK
        )
    axes.set_yticks(
        range(len(ordered)),
        [f"{row.name}\n{_short(row.pattern)}" for row in reversed(ordered)],
        fontsize=7.5,
        linespacing=0.95,
    )
    if human is not None:
        axes.axvspan(human.low, human.high, color=PALETTE[3], alpha=0.18, linewidth=0)
        axes.text(human.low, -1.0, human.name, color=PALETTE[3], fontsize=8, va="center")
    top = len(ordered) - 0.4
    for line in references:
        axes.axvline(line.low, color=PALETTE[1], linestyle="--", linewidth=0.8)
        axes.text(line.low, top, f"{line.name} ", color=PALETTE[1], fontsize=8, rotation=60, va="bottom")
    plain_axes(axes, "", "bits / token = log2 of the number of equally likely choices", "")
    axes.set_ylim(-1.5, top)
    axes.grid(axis="y", visible=False)
    limit = max([row.bits_per_token for row in rows] + [line.high for line in references]) * 1.05
    axes.set_xlim(0, limit)
    choices = axes.secondary_xaxis(-0.7 / (0.3 * len(ordered)))
    ticks = range(0, int(limit) + 1, 2)
    choices.set_xticks(ticks, [f"{2**bits:,}" for bits in ticks], fontsize=8, color=INK)
    choices.set_xlabel("choices left", color=INK)
    choices.spines["bottom"].set_color(FAINT)
    figure.suptitle(
        "Patterns found, and the choices left (dashed: the talk's figures, of another text and tokenizer)",
        x=0.01, ha="left", fontsize=11, color=INK,
    )  # fmt: skip
    save(figure, path)


def _short(pattern: str) -> str:
    return pattern.split(" (")[0]
