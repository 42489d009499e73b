"""A nested model against separately trained models of its widths, at equal tokens.

    python benchmarks/nested.py               trains what is not there yet; the same command goes on
    python benchmarks/nested.py --report      the table of what is there

All models have the same samples in the same order, on the demo corpus as bytes. Arms: one width drawn for each step,
all widths at each step (as many passes), and a dense model of each width.
"""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from statistics import fmean, stdev

from short_runs import BYTES, alone, done, keep, study
from stale import mark_of

from megarc.config import build
from megarc.errors import run_script
from megarc.report import table

RESULTS = Path(__file__).with_name("results") / "nested.json"
WIDTHS = ("1/8", "1/4", "1/2", "1")
FFN, STEPS, SEEDS = 256, 600, (0, 1, 2)


def main() -> int:
    return study(__doc__, train_all, report)


def train_all(seconds: float) -> None:
    from megarc.model import kept_of
    from megarc.science.short_training import short_training

    begun = time.monotonic()
    missing = [(arm, seed) for seed in SEEDS for arm in arms() if f"{arm}/{seed}" not in done(RESULTS)]
    if not missing:
        return
    with alone() as groups:
        for arm, seed in missing:
            if time.monotonic() - begun > seconds:
                return
            with short_training(configuration(arm, seed), groups) as training:
                for _ in training.steps(STEPS):
                    pass
                model = training.config.model
                found = (
                    {width: training.heldout(kept_of(model, Fraction(width))) for width in WIDTHS}
                    if model.nested
                    else {arm.removeprefix("dense "): training.heldout()}
                )
            keep(RESULTS, f"{arm}/{seed}", found)
            print(arm, seed, found, f"{time.monotonic() - begun:.0f} s", flush=True)


def arms() -> list[str]:
    return [*(f"dense {width}" for width in WIDTHS), "drawn", "all"]


def configuration(arm: str, seed: int):
    from megarc.train import RunConfig

    dense = arm.startswith("dense")
    ffn = int(FFN * Fraction(arm.removeprefix("dense "))) if dense else FFN
    tree = {
        "length": f"{STEPS} steps",
        "seed": seed,
        "window": {"recent": 0, "causal": 64},
        "model": {"layers": 2, "hidden": 64, "heads": 2, "ffn": ffn, "nested": None if dense else WIDTHS},
        "objective": {} if dense else {"widths": arm},
        "data": BYTES,
        "batch": {"size": 4, "micro": 4, "noise_every": 0},
        "optimizer": {"lr": 2.0**-8},
        "schedule": {"kind": "cosine", "warmup": "0.1 of run"},
        "validation": {"windows": 512},
    }
    return build(RunConfig, tree, "benchmarks/nested.py")


def report() -> None:
    known = done(RESULTS)
    rows = []
    for width in WIDTHS:
        cells = []
        for arm in (f"dense {width}", "drawn", "all"):
            values = [known[f"{arm}/{seed}"][width] for seed in SEEDS if f"{arm}/{seed}" in known]
            error = f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
            cells.append(f"{fmean(values):.3f}{error}" if values else "-")
        rows.append([width, *cells])
    print(mark_of("benchmarks/nested.py") + "\n")
    columns = ["width", "trained alone", "nested, one drawn a step", "nested, all at each step"]
    print(table(columns, rows, markdown=True))


if __name__ == "__main__":
    run_script(main)
