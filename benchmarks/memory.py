"""Predicted memory against what the allocator counts, for every ZeRO stage, precision and recomputation.

    python benchmarks/memory.py           a model of 1.8M parameters, one process; a minute
    python benchmarks/memory.py --blocks  what one block keeps, beside the formulas of Korthikanti et al. 2022

Without --blocks each case is a real run of three steps with `launch/pretrain.py --explain-memory`, in a process of
its own. Printed, and written to benchmarks/results/memory.json (memory_blocks.json).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from options import options  # noqa: E402
from support.allocations import allocations  # noqa: E402

from megarc.errors import run_script  # noqa: E402
from megarc.model import ExecutionConfig, ModelConfig, Transformer, footprint, initialise  # noqa: E402
from megarc.progress import progress  # noqa: E402
from megarc.report import table  # noqa: E402
from megarc.window import Window  # noqa: E402

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
    parser = options(__doc__)
    parser.add_argument("--blocks", action="store_true", help="bytes that one block keeps alone")
    if parser.parse_args().blocks:
        return blocks()
    found = []
    with progress("cases", len(CASES)) as bar:
        for zero, precision, recompute in CASES:
            case = {"zero": zero, "precision": precision, "recompute": recompute}
            found.append(case | {"mib": run(zero, precision, recompute)})
            bar.advance(1)
    rows = []
    for case in found:
        cells = [f"{value:.2f}" for row in SHOWN for value in case["mib"][row]]
        predicted, measured = case["mib"]["at its most"]
        rows.append(
            [case["zero"], case["precision"], case["recompute"], *cells, f"{predicted / measured:.2f}"]
        )
    heads = [f"{name} {kind}" for name in SHOWN.values() for kind in ("predicted", "measured")]
    print(table(["ZeRO", "precision", "recompute", *heads, "ratio"], rows, markdown=True))
    results = ROOT / "benchmarks" / "results" / "memory.json"
    results.write_text(json.dumps({"keys": KEYS, "cases": found}, indent=1) + "\n")
    return 0


def blocks() -> int:
    """Bytes a token and hidden element that one block keeps, bf16: the formulas, predicted, eager and compiled."""
    window, batch, layer = Window(128, 128, 128), 2, {"hidden": 256, "heads": 4, "vocabulary": 1000}
    cells = (window.tokens - 1) * batch * layer["hidden"]
    formulas = {
        "none": 34 + 5 * layer["heads"] * window.rows / layer["hidden"],
        "selective": 34.0,
        "full": 2.0,
    }
    found = []
    for recompute, formula in formulas.items():
        execution = ExecutionConfig(recompute=recompute)
        one = footprint(
            ModelConfig(layers=1, **layer), execution, window, batch, torch.bfloat16, torch.device("cpu")
        )
        found.append({"recompute": recompute, "formula": formula, "predicted": one.kept / cells})
        for compiled in (False, True):
            ways = execution.model_copy(update={"compile": compiled})
            few, many = (kept(ModelConfig(layers=count, **layer), ways, window, batch) for count in (2, 4))
            found[-1]["compiled" if compiled else "eager"] = (many - few) / 2 / cells
    rows = [[one["recompute"], *(f"{value:.2f}" for value in list(one.values())[1:])] for one in found]
    print(table(["recompute", "formula", "predicted", "measured", "measured, compiled"], rows, markdown=True))
    results = ROOT / "benchmarks" / "results" / "memory_blocks.json"
    results.write_text(
        json.dumps({"unit": "bytes / (s b h)", "layer": layer, "rows": found}, indent=1) + "\n"
    )
    return 0


def kept(config: ModelConfig, execution: ExecutionConfig, window: Window, batch: int) -> int:
    """Bytes that are held between the forward and the backward pass."""
    model = Transformer(config, execution)
    initialise(model, config, 0)
    model.to(torch.bfloat16)
    tokens = torch.randint(0, config.vocabulary, (batch, window.tokens))
    model(tokens, window.loss_rows, window.recent).objective.backward()  # compiles
    for parameter in model.parameters():
        parameter.grad = None
    with allocations() as seen:
        loss = model(tokens, window.loss_rows, window.recent)
    del loss
    return seen.left


def run(zero: int, precision: str, recompute: str) -> dict[str, tuple[float, float]]:
    """Each row of the table: (predicted, measured), in MiB."""
    with tempfile.TemporaryDirectory() as scratch:
        keys = [*KEYS, f"parallel.zero={zero}", f"precision={precision}", f"execution.recompute={recompute}"]
        done = subprocess.run(
            [sys.executable, ROOT / "launch" / "pretrain.py", "--explain-memory", *keys, f"folder={scratch}/run"],
            capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    rows = re.findall(r"^(\S.+?) {2,}([\d.]+) +([\d.]+)", done.stdout.split("MiB of a rank")[1], re.M)
    return {row: (float(predicted), float(measured)) for row, predicted, measured in rows}


if __name__ == "__main__":
    run_script(main)
