"""What a start of a small run costs: CPU-seconds and seconds from the command to its first step.

    python benchmarks/startup.py                        this checkout, beside what it imports
    python benchmarks/startup.py --against FOLDER       beside another checkout, in turn

The run is `launch/pretrain.py` with configs/models/1M.yaml, 40 rows and 4 samples a step, on one process and one
compute thread. The programs take turns; each figure is the best of them, since a busy machine, and modules that Python
compiles at their first import, only add. The first step is over when its line is logged. Written to
benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil
from options import options

from megarc.errors import UserError, run_script
from megarc.report import table

ROOT = Path(__file__).resolve().parents[1]
KEYS = [
    "data.train=[{kind: pointer_chase}]", "data.valid=[]", "length=2 steps", "batch.size=4", "logging.every=1",
    "window.recent=24", "window.causal=16", "window.stride=16",
]  # fmt: skip
IMPORTS = {
    "import torch": "import torch",
    "import torch, deepspeed": "import torch, deepspeed",
    "import megarc.train": "import megarc.train",
    "import megarc.train.run": "import megarc.train.run",
}


def main() -> int:
    parser = options(__doc__, "startup.json")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each (5)")
    arguments = parser.parse_args()
    facts = measured(arguments)
    arguments.out.write_text(json.dumps(facts, indent=2) + "\n")
    rows = [
        (name, f"{one['cpu_seconds']:.2f}", f"{one['seconds']:.2f}") for name, one in facts["starts"].items()
    ]
    print(table(["what", "CPU-seconds", "seconds"], rows))
    if "ratio" in facts:
        print(f"the first step of this checkout takes {facts['ratio']:.2f} of the other's CPU-seconds")
    return 0


def measured(arguments: argparse.Namespace) -> dict:
    """The best of each program's starts, by name."""
    first_step = {"first step": ROOT}
    if arguments.against:
        first_step["first step, the other checkout"] = arguments.against
    seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, code in IMPORTS.items():
            seen[name].append(start([sys.executable, "-c", code], ROOT, until=None))
        for name, checkout in first_step.items():
            with tempfile.TemporaryDirectory() as scratch:
                page = [
                    str(checkout / "launch/pretrain.py"),
                    "--config",
                    str(checkout / "configs/runs/tiny.yaml"),
                ]
                command = [sys.executable, *page, *KEYS, f"folder={scratch}/run"]
                seen[name].append(start(command, checkout, until="step 1 of 2"))
    best = {
        name: {"cpu_seconds": min(cpu for cpu, _ in all_of), "seconds": min(wall for _, wall in all_of)}
        for name, all_of in seen.items()
    }
    facts = {"starts": best, "rounds": arguments.rounds, "python": platform.python_version()}
    if arguments.against:
        ours, theirs = (best[name]["cpu_seconds"] for name in first_step)
        facts["ratio"] = ours / theirs
    return facts


def start(command: list[str], checkout: Path, until: str | None) -> tuple[float, float]:
    """CPU-seconds, with its children's, and seconds until it says so, or ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every start compiles all of our modules
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if until and line.startswith(until):
            used, seconds = psutil.Process(process.pid).cpu_times(), time.perf_counter() - begun
            process.kill()
            process.wait()
            return used.user + used.system + used.children_user + used.children_system, seconds
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if until or process.returncode:
        raise UserError(f"{' '.join(command)} ended with {process.returncode}: {''.join(said)}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - begun


if __name__ == "__main__":
    run_script(main)
