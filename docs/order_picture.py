"""Draws docs/order.png with the order itself: python docs/order_picture.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from megarc.data.blend import quotas
from megarc.data.order import Shuffled
from megarc.window import Window

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import Rectangle

WINDOW = Window(recent=4, causal=4, stride=4)
TOKENS = 41
RANKS, MICRO_BATCH = 2, 2
R, C, GIVEN = "#9fb8d8", "#e08a3c", "#f3cfa6"


def main() -> None:
    figure, (corpus, order, step) = pyplot.subplots(3, 1, figsize=(10, 7.5), height_ratios=(3, 3.2, 1.5))
    count = WINDOW.count(TOKENS)
    draw_windows(corpus, count)
    sizes = [count, 30]
    places = Shuffled(sizes, ["a", "b"], quotas([1, 1]), seed=1).places(0, 40)
    draw_order(order, places)
    draw_step(step, places)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("order.png"), dpi=90)


def draw_windows(axes: Any, count: int) -> None:
    """The windows of a corpus over its tokens: R, the given row of C, the rows that bear loss."""
    axes.set_title(f"1. A corpus of {TOKENS} tokens as {count} windows {WINDOW}", loc="left")
    for number in range(count):
        for row in range(WINDOW.rows):
            colour = R if row < WINDOW.recent else C
            axes.add_patch(Rectangle((number * WINDOW.stride + row, -number), 1, 0.8, fc=colour, ec="white"))
        axes.text(number * WINDOW.stride - 0.3, 0.4 - number, str(number), ha="right", va="center")
    axes.set_xlim(-2, TOKENS + 12)
    axes.set_ylim(-count + 0.8, 1)
    axes.set_xlabel("token")
    axes.set_yticks([])
    for colour, label in ((R, "R"), (C, "C: every row predicts the next token")):
        axes.add_patch(Rectangle((0, 9), 1, 1, fc=colour, label=label))
    axes.legend(loc="upper right", frameon=False)


def draw_order(axes: Any, places: Any) -> None:
    """Samples 0..39 of a run: which window of which source."""
    axes.set_title("2. The order: corpus a and corpus b in turn, each window once an epoch", loc="left")
    for source, (name, colour) in enumerate((("a", "#33658a"), ("b", "#86bbd8"))):
        mine = np.nonzero(places.source == source)[0]
        axes.plot(mine, places.number[mine], "o", color=colour, label=f"of corpus {name}")
    first = np.nonzero(places.source == 0)[0]
    for epoch in range(0, len(first), 9):
        axes.axvline(first[epoch] - 0.5, color="#33658a", lw=0.8, ls=":")
    axes.set_xlabel("sample k of the run (dotted: an epoch of a begins)")
    axes.set_ylabel("window")
    axes.set_ylim(-2, 38)
    axes.set_xlim(-1, 40)
    axes.legend(loc="upper right", frameon=False)


def draw_step(axes: Any, places: Any) -> None:
    """Steps of 8 samples on two data ranks with micro-batches of 2."""
    batch = RANKS * MICRO_BATCH * 2
    axes.set_title("3. Steps of 8 samples, cut into 2 data ranks, cut into micro-batches of 2", loc="left")
    for k in range(40):
        rank = k % batch // (batch // RANKS)
        axes.add_patch(Rectangle((k - 0.5, 0), 0.96, 1, fc=("#cfe3cf", "#e9d8f4")[rank], ec="none"))
        axes.text(k, 0.5, f"{'ab'[places.source[k]]}{places.number[k]}", ha="center", va="center", fontsize=7)
        if k % MICRO_BATCH == 0:
            axes.plot([k - 0.5] * 2, [0, 1], color="white" if k % batch else "black", lw=2)
    for rank in range(RANKS):
        axes.text(rank * batch / RANKS + 1.5, 1.15, f"rank {rank}", ha="center", fontsize=8)
    axes.set_xlim(-1, 40)
    axes.set_ylim(0, 1.5)
    axes.set_yticks([])
    axes.set_xlabel("sample k")


if __name__ == "__main__":
    main()
