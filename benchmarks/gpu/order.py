"""All that is to be measured on one GPU, the most valuable figure first, offline, in calls of 6 minutes.

    python benchmarks/gpu/order.py                       goes through the parts; the same command goes on
    python benchmarks/gpu/order.py --seconds 340         begins no part after so many seconds (340)
    python benchmarks/gpu/order.py --device cpu --toy    every part at toy size, to see that it runs

The parts: attention (every engine, the order that ``auto`` should have); whole steps of 1.3B with fp8 at each scale,
then 124M, 350M and 760M (MFU, memory predicted and measured); 200 steps of two recipes. Each part writes its own JSON
at once, and benchmarks/results/gpu-order.json says after each what it found beside the targets.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from options import gpu_options, need_gpu  # noqa: E402

MFU = (0.42, 0.47, 0.55)  # published at 1B; Megatron-LM's best; 8B on one H200 (docs/speed.md)


@dataclass(frozen=True, slots=True)
class Part:
    """A script of this folder, its arguments, what a toy has instead, and the seconds that it may take."""

    name: str
    script: str
    real: tuple[str, ...]
    toy: tuple[str, ...]
    seconds: float
    judge: Callable[[dict], dict]


def main() -> int:
    parser = gpu_options(__doc__, "gpu-order.json", toy="every part at toy size")
    parser.add_argument("--seconds", type=float, default=340, help="begin no part after so many (340)")
    arguments = parser.parse_args()
    need_gpu(arguments.device)
    out: Path = arguments.out
    found = json.loads(out.read_text()) if out.exists() else {}
    end = time.monotonic() + arguments.seconds
    for part in PARTS:
        if found.get(part.name, {}).get("done") or time.monotonic() > end:
            continue
        left = part.seconds if arguments.toy else min(part.seconds, end - time.monotonic() + 20)
        found[part.name] = run(part, left, arguments)
        out.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps({part.name: found[part.name]}, indent=1), flush=True)
    missing = [part.name for part in PARTS if not found.get(part.name, {}).get("done")]
    print(
        f"not finished: {', '.join(missing)}; the same command goes on" if missing else "all parts are done"
    )
    return 0


def run(part: Part, seconds: float, arguments: argparse.Namespace) -> dict:
    """One part; what it wrote before its time was up counts."""
    results = arguments.out.with_name(f"gpu-order-{part.name}.json")
    place = (
        ["--out", str(results)] if part.script != "recipes.py" else ["--out", str(results.with_suffix(""))]
    )
    command = [sys.executable, str(HERE / part.script), *(part.toy if arguments.toy else part.real), *place,
               "--device", arguments.device]  # fmt: skip
    begun, problem = time.monotonic(), None
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=seconds)
        problem = said.strip()[-500:] if process.returncode else None
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate()
        problem = f"stopped after {seconds:.0f} s"
    report = json.loads(results.read_text()) if results.exists() else {}
    verdict = part.judge(report) if report else {}
    return {
        "done": problem is None,
        "seconds": round(time.monotonic() - begun, 1),
        "problem": problem,
        **verdict,
    }


# ---- what the figures say beside the targets


def attention(report: dict) -> dict:
    rows = [row for row in report.get("rows", []) if row["verdict"]]
    return {
        "device": report["device"],
        "shapes": len(rows),
        "time over the fastest engine's": report.get("order"),
        "useful TFLOP/s, best engine": max((row["verdict"]["useful_tflops"] for row in rows), default=None),
    }


def steps(report: dict) -> dict:
    rows = [row for row in report["rows"] if "ms" in row]
    ours = [row for row in rows if row["who"] == "ours"]
    best = max((row["mfu_exact_mask"] or 0.0 for row in ours), default=0.0)
    return {
        "MFU of the exact mask": best,
        "targets reached": [target for target in MFU if best >= target],
        "fp8 / bf16, speed (published with a scale a tensor: 1.17)": {
            f"{row['who']}, r {row['recent']}": one["ms"] / row["ms"]
            for row in rows
            for one in ours
            if "fp8" in row["who"] and one["recent"] == row["recent"]
        },
        "memory, measured / predicted for eager code": [
            row["peak_gib"] / row["predicted_gib_eager"] for row in ours if row["peak_gib"]
        ],
    }


def ladder(*models: str, fp8: bool = False) -> Part:
    more = ("--fp8",) if fp8 else ()
    return Part(
        f"steps-{'-'.join(models)}", "train.py", ("--models", *models, *more), ("--toy", *more), 240.0, steps
    )


PARTS = (
    Part("attention", "attention.py", ("--seconds", "200"), ("--toy",), 280.0, attention),
    ladder("1.3B", fp8=True),
    ladder("124M"),
    ladder("350M", "760M"),
    Part(
        "recipes",
        "recipes.py",
        ("--minutes", "5", "--steps", "200"),
        ("--size", "1M", "--steps", "2", "--rows", "32"),
        360.0,
        lambda report: {},
    ),
)


if __name__ == "__main__":
    sys.exit(main())
