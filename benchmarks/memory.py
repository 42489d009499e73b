"""What memory is told beforehand against what the allocator counts, for every ZeRO stage, precision and recomputation.

    python benchmarks/memory.py           a model of 1.8M parameters, one process; a minute

Each case is a real run of three steps with `launch/pretrain.py --explain-memory`, in a process of its own. Printed, and
written to benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from megarc.errors import run_script
from megarc.progress import progress
from megarc.report import table

ROOT = Path(__file__).resolve().parents[1]
STAGES = [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "fp32"), (2, "bf16"), (3, "fp32"), (3, "bf16")]
CASES = [(zero, precision, "none") for zero, precision in STAGES] + [
    (1, "fp32", recompute) for recompute in ("selective", "full")
]
KEYS = [
    "model.layers=4", "model.hidden=192", "model.heads=4", "window.recent=24", "window.causal=16", "batch.size=32",
    "batch.micro=16", "data.train=[{kind: pointer_chase}]", "length=3 steps", "schedule.warmup=1 steps",
    "device=cpu", "logging.tensorboard=false", "logging.peak_flops=1e12",
]  # fmt: skip
SHOWN = {"activations, as the backward pass begins": "activations", "at its most": "at its most"}


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    found = []
    with progress("cases", len(CASES)) as bar:
        for zero, precision, recompute in CASES:
            case = {"zero": zero, "precision": precision, "recompute": recompute}
            found.append(case | {"mib": run(zero, precision, recompute)})
            bar.advance(1)
    rows = []
    for case in found:
        cells = [f"{value:.2f}" for row in SHOWN for value in case["mib"][row]]
        told, seen = case["mib"]["at its most"]
        rows.append([case["zero"], case["precision"], case["recompute"], *cells, f"{told / seen:.2f}"])
    heads = [f"{name} {kind}" for name in SHOWN.values() for kind in ("told", "seen")]
    print(table(["ZeRO", "precision", "recompute", *heads, "ratio"], rows, markdown=True))
    results = ROOT / "benchmarks" / "results" / "memory.json"
    results.write_text(json.dumps({"keys": KEYS, "cases": found}, indent=1) + "\n")
    return 0


def run(zero: int, precision: str, recompute: str) -> dict[str, tuple[float, float]]:
    """Each row of the table: (told, seen), in MiB."""
    with tempfile.TemporaryDirectory() as scratch:
        keys = [*KEYS, f"parallel.zero={zero}", f"precision={precision}", f"execution.recompute={recompute}"]
        done = subprocess.run(
            [sys.executable, ROOT / "launch" / "pretrain.py", "--explain-memory", *keys, f"folder={scratch}/run"],
            capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    rows = re.findall(r"^(\S.+?) {2,}([\d.]+) +([\d.]+)", done.stdout.split("MiB of a rank")[1], re.M)
    return {row: (float(told), float(seen)) for row, told, seen in rows}


if __name__ == "__main__":
    run_script(main)
