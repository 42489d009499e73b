"""Trains one tiny model on one process and under every mix of parallelism that fits, and compares.

    python benchmarks/parity.py              all mixes that fit 8 ranks, both precisions; minutes
    python benchmarks/parity.py --ranks 2    those that fit 2

Tensor 1, 2, 4 x pipeline 1, 2 x data 1, 2 x ZeRO 0-3 x sequence off and on, as far as they are supported:
10 steps with accumulation, clipping, weighted losses, z-loss, tied embedding. Printed and written to
docs/parity.md and benchmarks/results/parity.json: the largest relative difference to one process of losses,
gradient norms, held-out losses and final weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.ranks import run_jobs  # noqa: E402
from support.runs import full_state, metrics, pretrain  # noqa: E402

from megarc.errors import run_script  # noqa: E402
from megarc.progress import progress  # noqa: E402
from megarc.report import table  # noqa: E402

STEPS = 10
NUMBERS = ("train/nats_per_token", "train/gradient_norm", "heldout/nats_per_token")
COLUMNS = [
    "tensor",
    "pipeline",
    "data",
    "ZeRO",
    "sequence",
    "precision",
    "loss",
    "gradient norm",
    "held-out",
    "weights",
    "largest",
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=8, help="at most so many (8)")
    parser.add_argument("--fp32-only", action="store_true", help="leave bf16 out")
    arguments = parser.parse_args()
    mixes = [mix for mix in supported(arguments.fp32_only) if mix[0] * mix[1] * mix[2] <= arguments.ranks]
    rows = []
    with tempfile.TemporaryDirectory() as scratch, progress("mixes", len(mixes) + 1) as bar:
        folder = Path(scratch)
        run_jobs([pretrain(folder / "one", 0, STEPS)], 1, folder)
        bar.advance(1)
        for world, pool in itertools.groupby(sorted(mixes, key=ranks), key=ranks):
            listed = list(pool)
            for part in (listed[first : first + 12] for first in range(0, len(listed), 12)):
                run_jobs([job(folder, mix) for mix in part], world, folder, timeout=900)
                bar.advance(len(part))
            rows += [[*mix[:4], "on" if mix[4] else "off", mix[5], *compared(folder, mix)] for mix in listed]
    write(rows)
    return 0


def supported(fp32_only: bool) -> list[tuple]:
    precisions = ("fp32",) if fp32_only else ("fp32", "bf16")
    found = itertools.product((1, 2, 4), (1, 2), (1, 2), (0, 1, 2, 3), (False, True), precisions)
    return [
        mix
        for mix in found
        if not (mix[1] > 1 and mix[3] != 1)  # a pipeline with another stage than 1
        and not (mix[5] == "bf16" and mix[3] == 0)
        and not (mix[4] and mix[0] == 1)  # nothing to split rows over
    ]


def ranks(mix: tuple) -> int:
    return mix[0] * mix[1] * mix[2]


def job(folder: Path, mix: tuple) -> dict:
    tensor, pipeline, _, zero, sequence, precision = mix
    return pretrain(folder / name(mix), zero, STEPS, parallel__tensor=tensor, parallel__pipeline=pipeline,
                    parallel__sequence=sequence, precision=precision)  # fmt: skip


def name(mix: tuple) -> str:
    return "-".join(map(str, mix))


def compared(folder: Path, mix: tuple) -> list[str]:
    one, other = folder / "one", folder / name(mix)
    found = [
        ((metrics(one, number) - metrics(other, number)).abs() / metrics(one, number).abs()).max().item()
        for number in NUMBERS
    ]
    ours, theirs = full_state(one), full_state(other)
    masters = [(ours[part], theirs[part]) for part in ours if part.endswith("/master")]
    norms = max(((one - other).norm() / one.norm()).item() for one, other in masters)
    largest = max(((one - other).abs().max() / one.abs().max()).item() for one, other in masters)
    return [f"{value:.1e}" for value in (*found, norms, largest)]


def write(rows: list[list]) -> None:
    print(table(COLUMNS, rows))
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    facts = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    (results / "parity.json").write_text(json.dumps({"steps": STEPS, "mixes": facts}, indent=1) + "\n")
    worst = [max(float(row[column]) for row in rows if row[5] == "fp32") for column in range(6, 11)]
    (ROOT / "docs" / "parity.md").write_text(
        "# Parity: every mix against one process\n\n"
        "`python benchmarks/parity.py` wrote this page: a tiny [R | C] model, 10 steps, against one\n"
        "process with ZeRO 0 in fp32. Largest relative differences over steps and parameters. Weights: the norm of\n"
        "a parameter's difference over its norm; largest: its largest difference over its largest weight, where Adam\n"
        "divides a gradient that is all rounding by its own size.\n\n"
        f"fp32, worst of all mixes: loss {worst[0]:.1e}, gradient norm {worst[1]:.1e}, held-out "
        f"{worst[2]:.1e}, weights {worst[3]:.1e} (largest {worst[4]:.1e}).\n"
        "Tolerance: 1e-5 for losses, norms and weights; bf16 is compared with fp32, its losses may differ by 1e-2.\n\n"
        + table(COLUMNS, rows, markdown=True)
        + "\n"
    )


if __name__ == "__main__":
    run_script(main)
