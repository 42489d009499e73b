"""Which learning rate is best at which width, in the standard parametrization and under muP.

    python benchmarks/transfer.py               trains what is not there yet; the same command goes on
    python benchmarks/transfer.py --report      table and picture of what is there

Every model has two layers, reads the demo corpus as bytes (`make demo` lists its files) and takes the same samples.
Only width, learning rate and parametrization differ. muP's base width is the smallest, where both are one model. muP
keeps what the base has, also its initial values, so it is trained a second time with those that are better there. On
an idle core all of it takes about three quarters of an hour.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from short_runs import BYTES, alone, done, keep, study
from stale import mark_of

from megarc.config import build
from megarc.errors import run_script

RESULTS = Path(__file__).with_name("results") / "transfer.json"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "transfer.png"
WIDTHS = (64, 128, 256, 512)
RATES = tuple(2.0**-power for power in (10, 9, 8, 7, 6, 5))
STEPS = 200
TUNED = "mup, initial_std 0.125"
ARMS = {"standard": ("standard", 0.02), "mup": ("mup", 0.02), TUNED: ("mup", 0.125)}
"""Parametrization and ``model.initial_std``, which is that of the base width."""


def main() -> int:
    return study(__doc__, train_all, report)


def train_all(seconds: float) -> None:
    from megarc.science.short_training import short_training

    begun, known = time.monotonic(), done(RESULTS)
    missing = [keys for keys in arms() if name_of(*keys) not in known]
    if not missing:
        return
    with alone() as groups:
        for keys in missing:
            if time.monotonic() - begun > seconds:
                return
            with short_training(configuration(*keys), groups) as training:
                losses = [float(result.loss) for result in training.steps(STEPS)]
                found = {"heldout": training.heldout(), "last": sum(losses[-10:]) / 10}
            keep(RESULTS, name_of(*keys), found)
            print(name_of(*keys), found, f"{time.monotonic() - begun:.0f} s", flush=True)


def arms() -> Iterator[tuple[str, int, float]]:
    """From cheap to dear; at the base width muP is the standard model, to the bit."""
    for width in WIDTHS:
        for arm in ARMS:
            for rate in RATES:
                if (arm, width) != ("mup", WIDTHS[0]):
                    yield arm, width, rate


def name_of(arm: str, width: int, rate: float) -> str:
    return f"{arm}/{width}/{rate:.6f}"


def configuration(arm: str, width: int, rate: float):
    from megarc.train import RunConfig

    parametrization, std = ARMS[arm]
    tree = {
        "length": f"{STEPS} steps",
        "window": {"recent": 0, "causal": 64},
        "model": {"layers": 2, "hidden": width, "heads": width // 32, "parametrization": parametrization,
                  "base_hidden": WIDTHS[0], "ffn": 2 * width, "initial_std": std},
        "data": BYTES,
        "batch": {"size": 8, "micro": 8, "noise_every": 0},
        "optimizer": {"lr": rate},
        "schedule": {"kind": "cosine", "warmup": "0.1 of run"},
        "validation": {"windows": 256},
    }  # fmt: skip
    return build(RunConfig, tree, "benchmarks/transfer.py")


def report() -> None:
    curves = curves_of(done(RESULTS))
    best = {name: min(points, key=points.__getitem__) for name, points in curves.items()}
    print(mark_of("benchmarks/transfer.py") + "\n")
    print("| width | " + " | ".join(f"lr 2^{round(math.log2(rate))}" for rate in RATES) + " | best |")
    print("|" + "---:|" * (len(RATES) + 2))
    for (arm, width), points in curves.items():
        cells = [f"{points[rate]:.3f}" if rate in points else "-" for rate in RATES]
        rate = best[arm, width]
        print(f"| {arm}: {width} | " + " | ".join(cells) + f" | 2^{round(math.log2(rate))} |")
    draw(curves)


def curves_of(known: dict[str, dict[str, float]]) -> dict[tuple[str, int], dict[float, float]]:
    """(arm, width) -> learning rate -> held-out loss."""
    curves: dict[tuple[str, int], dict[float, float]] = {}
    for arm in ARMS:
        for width in WIDTHS:
            own = "standard" if (arm, width) == ("mup", WIDTHS[0]) else arm
            for rate in RATES:
                if (found := known.get(name_of(own, width, rate))) is not None:
                    curves.setdefault((arm, width), {})[rate] = found["heldout"]
    return curves


def draw(curves: dict[tuple[str, int], dict[float, float]]) -> None:
    from megarc.report.style import PALETTE, new_figure, plain_axes, save

    figure = new_figure(13, 4.2)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, arm in zip(panels, ARMS, strict=True):
        for width, colour in zip(WIDTHS, PALETTE, strict=False):
            points = sorted(curves.get((arm, width), {}).items())
            if points:
                rates, losses = zip(*points, strict=True)
                best = min(points, key=lambda point: point[1])
                axes.plot(rates, losses, "-o", color=colour, markersize=4, label=f"width {width}")
                axes.plot(*best, "o", color=colour, markersize=10, markerfacecolor="none")
        plain_axes(axes, arm, "learning rate", "held-out nats / token")
        axes.set_xscale("log", base=2)
        if axes.lines:
            axes.legend(frameon=False)
    save(figure, PICTURE)


if __name__ == "__main__":
    run_script(main)
