"""How long a step waits for a checkpoint, and how fast it is written and loaded.

    python benchmarks/checkpoint.py                       configs/models/35M.yaml, one process
    python benchmarks/checkpoint.py --model 124M --folder /fast/disk

The stall is the time of `Saver.save` once its buffers exist; the ceiling is a bare copy of the same bytes in the
same run. Written to benchmarks/results/checkpoint.json.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from pathlib import Path

import torch
from options import options

from megarc.config import load
from megarc.data import open_stream
from megarc.errors import run_script
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import read_rank_environment
from megarc.report import table
from megarc.science import MAKERS
from megarc.train import RunConfig, resolve
from megarc.train.checkpoint import Level, Saver, Standing, latest
from megarc.train.checkpoint import load as load_checkpoint
from megarc.train.checkpoint.fragments import buffers, written
from megarc.train.engine import build_engine

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--model", default="35M", help="a file of configs/models (35M)")
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    arguments = parser.parse_args()
    window = [
        "window.recent=24",
        "window.causal=16",
        "window.stride=16",
        "data.train=[{kind: pointer_chase}]",
    ]
    config = load(RunConfig, ROOT / "configs" / "models" / f"{arguments.model}.yaml", window)
    groups = connect(meet(read_rank_environment()), "cpu")
    stream = open_stream(config.data, "train", config.window.build(), 0, makers=MAKERS)
    engine = build_engine(resolve(config, stream, groups.topology), groups)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        facts = measure(engine, groups, Path(scratch))
    disconnect()
    print(table(["", "seconds", "GB/s"], [[name, *values] for name, values in facts["rows"].items()]))
    print(f"stall / bare copy: {facts['stall_over_copy']:.2f} (target 1.5)")
    results = ROOT / "benchmarks" / "results" / "checkpoint.json"
    results.write_text(json.dumps({"model": arguments.model, **machine(), **facts}, indent=2) + "\n")
    return 0


def measure(engine, groups, folder: Path) -> dict:
    saver, level = Saver(groups), Level.shared(folder, groups, keep=1)
    state = [tensor for _, tensor in buffers(written(engine))]
    size = sum(tensor.numel() * tensor.itemsize for tensor in state)
    copies = [torch.empty_like(tensor) for tensor in state]
    stalls, writes, bare = [], [], []
    for step in range(1, REPEATS + 2):
        begun = time.perf_counter()
        for copy, tensor in zip(copies, state, strict=True):
            copy.copy_(tensor)
        bare.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        saver.save(engine, Standing(step, step), {"config": {}}, level)
        stalls.append(time.perf_counter() - begun)
        saver.wait()
        writes.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    load_checkpoint(latest(folder), engine)
    loaded = time.perf_counter() - begun
    # The first save makes the buffers; the first copy touches its memory.
    stall, copy, write = (sorted(times[1:])[REPEATS // 2] for times in (stalls, bare, writes))
    rows = {
        "stall of a step": stall,
        "bare copy": copy,
        "written, synced, digests": write,
        "loaded, digests checked": loaded,
    }
    return {
        "bytes": size,
        "rows": {name: [f"{seconds:.3f}", f"{size / seconds / 1e9:.2f}"] for name, seconds in rows.items()},
        "stall_over_copy": stall / copy,
    }


def machine() -> dict:
    return {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
            "python": platform.python_version()}  # fmt: skip


if __name__ == "__main__":
    run_script(main)
