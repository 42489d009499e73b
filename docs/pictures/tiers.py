"""Draws the picture of docs/tiers.md: python docs/pictures/tiers.py"""

from __future__ import annotations

from pathlib import Path

from megarc.report.style import INK, PALETTE, new_figure, save

HERE = Path(__file__).parent
BLUE, RED, GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
GREY = "#BBBBBB"
BOUNDARY = 11.0


def main() -> None:
    figure = new_figure(9, 4.2)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-3.2, 17.5)
    axes.set_ylim(-0.6, 6.6)

    def bar(left: float, row: float, width: float, colour: str, words: str, height: float = 0.62) -> None:
        axes.barh(row, width, height, left, color=colour, edgecolor="white", linewidth=1.5)
        axes.text(left + width / 2, row, words, ha="center", va="center", color="white", fontsize=8)

    def tier(row: float, name: str, history: float, rollouts: list[str], writes: str | None) -> None:
        axes.text(-3.1, row, name, va="center", color=INK, fontsize=10, fontweight="bold")
        wide = (BOUNDARY - history) / max(len(rollouts), 1)
        bar(0, row, history, GREY, "history")
        for number, colour in enumerate(rollouts):
            bar(history + number * wide, row, wide, colour, "roll-out")
        bar(BOUNDARY, row, 4, INK, "C: predicted")
        if writes:
            for number in range(2):
                bar(BOUNDARY + 0.6, row + 0.75 + 0.36 * number, 3, writes, "", 0.3)
            axes.text(BOUNDARY + 3.8, row + 0.93, "writes K roll-outs", va="center", color=writes, fontsize=9)

    tier(0, "bottom", BOUNDARY, [], BLUE)
    tier(2.2, "middle", 7, [BLUE, BLUE], RED)
    tier(4.4, "top", 3, [BLUE, BLUE, RED, RED], None)
    axes.plot([BOUNDARY, BOUNDARY], [-0.5, 5.2], color=GREEN, linewidth=1.6)
    axes.text(
        BOUNDARY,
        5.45,
        "the boundary's token: the last that a roll-out may know",
        ha="center",
        color=GREEN,
        fontsize=9,
    )
    axes.text(5.5, -0.55, "R: seen whole, never predicted", ha="center", va="top", color=INK, fontsize=9)
    save(figure, HERE / "tiers.png")


main()
