"""Predicted seconds of a step against measured ones on this machine's CPU, 1 and 2 ranks of one thread each.

    python benchmarks/plan_here.py           three turns of calibration and steps; writes docs/plan.md's table
    python benchmarks/plan_here.py --turns 5

Calibration and steps take turns, and of each the fastest counts, so that a moment at which others use the machine harms
neither. One rank counts its own CPU time; two ranks wait for each other, so the wall time of their fastest step counts:
use it on quiet cores. Each turn is kept in benchmarks/results/plan_here.json at once; a run that was stopped goes on.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from options import options
from plan import write
from short_runs import done, keep
from stale import mark_of

from megarc.config import build, to_dict
from megarc.data import Batch
from megarc.errors import run_script
from megarc.parallel import disconnect
from megarc.plan import DeviceConfig, Layout, Planner, calibrate
from megarc.rank_environment import read_rank_environment
from megarc.report import table
from megarc.train import MicroBatch, RunConfig, build_engine, start, to_tensors

_STEPS = 6
_SMALL = {"layers": 4, "hidden": 256, "heads": 4, "vocabulary": 2048}
CASES: dict[str, dict[str, Any]] = {
    "4 blocks of 256, 128 rows": {
        "model": _SMALL, "window": {"recent": 64, "causal": 64, "stride": 64}, "batch": {"size": 8, "micro": 4}},
    "4 blocks of 256, 512 rows, recomputed": {
        "model": _SMALL, "window": {"recent": 256, "causal": 256, "stride": 256}, "batch": {"size": 4, "micro": 2},
        "execution": {"recompute": "full"}},
    "6 blocks of 320, 256 rows": {
        "model": {"layers": 6, "hidden": 320, "heads": 5, "vocabulary": 4096},
        "window": {"recent": 128, "causal": 128, "stride": 128}, "batch": {"size": 4, "micro": 2}},
}  # fmt: skip
RANKS = dict.fromkeys(CASES, (1, 2))


def main() -> int:
    parser = options(__doc__, "plan_here.json")
    parser.add_argument("--turns", type=int, default=3, help="of calibration and steps (3)")
    parser.add_argument("--steps-of", metavar="CASE", help="what each rank that this script starts does")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.steps_of is not None:
        print(json.dumps(steps(arguments.steps_of)), flush=True)
        return 0
    for turn in range(arguments.turns):
        if f"turn {turn}" not in done(arguments.out):
            found: dict[str, Any] = {"device": to_dict(calibrate(torch.device("cpu")))}
            found |= {f"{name} x {ranks}": measured(name, ranks) for name in CASES for ranks in RANKS[name]}
            keep(arguments.out, f"turn {turn}", found)
    turns = [done(arguments.out)[f"turn {turn}"] for turn in range(arguments.turns)]
    device = build(DeviceConfig, fastest([one["device"] for one in turns]), "calibration")
    rows = [row(name, ranks, device, turns) for name in CASES for ranks in RANKS[name]]
    text = table(["model, window", "ranks", "s predicted", "s measured", "error"], rows, markdown=True)
    print(text)
    write("here", f"{mark_of('benchmarks/plan_here.py')}\n\n{text}")
    return 0


def measured(name: str, ranks: int) -> dict[str, Any]:
    """Of new processes: ``steps`` of rank 0."""
    script = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), __file__]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, *script, "--steps-of", name], env=environment, capture_output=True, text=True
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return next(line for line in lines if line["rank"] == 0)


def steps(name: str) -> dict[str, Any]:
    """Seconds of the fastest step of this rank, wall and CPU."""
    logging.getLogger("megarc").setLevel(logging.ERROR)
    config = configuration(name)
    groups = start(read_rank_environment(), lambda: config, timedelta(minutes=2)).groups
    engine = build_engine(config, groups)
    count = config.batch.size // groups.data.size // config.batch.micro_batch
    batches = [random_tokens(config, groups.device) for _ in range(count)]
    wall, cpu = [], []
    for _ in range(_STEPS + 1):
        begun = time.perf_counter(), time.process_time()
        float(engine.step(batches, 1e-4).loss)
        wall.append(time.perf_counter() - begun[0])
        cpu.append(time.process_time() - begun[1])
    rank = groups.data.rank
    engine.close()
    disconnect()
    return {"rank": rank, "wall": min(wall[1:]), "cpu": min(cpu[1:])}


def configuration(name: str) -> RunConfig:
    return build(RunConfig, {**CASES[name], "parallel": {"zero": 0}, "device": "cpu"}, name)


def random_tokens(config: RunConfig, device: torch.device) -> MicroBatch:
    """A micro-batch of the run's window: what the tokens are does not matter to its time."""
    window, samples = config.window.build(), config.batch.micro_batch
    assert config.model.vocabulary is not None
    tokens = np.random.default_rng(0).integers(0, config.model.vocabulary, (samples, window.tokens))
    return to_tensors(Batch(tokens, np.full(samples, window.recent), np.arange(samples)), device)


def fastest(devices: list[dict[str, Any]]) -> dict[str, Any]:
    """The best of several calibrations: each of its rates may have met a busy moment."""
    best = devices[0]
    for other in devices[1:]:
        a, b = best["measured"], other["measured"]
        for name, value in a.items():
            if isinstance(value, list):
                a[name] = [
                    [size, max(rate, more)] for (size, rate), (_, more) in zip(value, b[name], strict=True)
                ]
            elif name == "crowded":
                a[name] = [min(pair) for pair in zip(value, b.get(name, value), strict=True)]
            elif name != "step":
                a[name] = max(value, b[name])
        best["operator_seconds"] = min(best["operator_seconds"], other["operator_seconds"])
        if other["inside"]["bandwidth"] > best["inside"]["bandwidth"]:
            best["inside"] = other["inside"]
    return best


def row(name: str, ranks: int, device: DeviceConfig, turns: list[dict[str, Any]]) -> list[str]:
    runs = [turn[f"{name} x {ranks}"] for turn in turns]
    seconds = min(run["cpu" if ranks == 1 else "wall"] for run in runs)
    config = configuration(name)
    planner = Planner(config, device)
    layout = Layout(
        data=ranks, zero=0, micro_batch=config.batch.micro_batch, recompute=config.execution.recompute
    )
    predicted = planner.plan(layout).step.seconds
    error = f"{100 * (predicted / seconds - 1):+.1f} %"
    return [name, str(ranks), f"{predicted:.4f}", f"{seconds:.4f}", error]


if __name__ == "__main__":
    run_script(main)
