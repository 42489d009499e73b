"""Predicted seconds of a step against measured ones on this machine's CPU, 1 and 2 ranks of one thread each.

    python benchmarks/plan_here.py             three turns, 6 minutes on quiet cores; writes docs/plan.md's table
    python benchmarks/plan_here.py --turns 5
    python benchmarks/plan_here.py --toy       one turn of a tiny model: whether it runs; writes no page

A turn calibrates, then takes steps on one rank and on two. Each turn's steps are compared with what its own calibration
predicts, so that a moment at which others use the machine slows both. The table has the medians over turns, and the
least and largest error. One rank counts its own CPU time; two ranks wait for each other, so wall time counts: use it
on quiet cores. Each turn is kept in benchmarks/results/plan_here.json at once; a run that was stopped goes on.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
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

_STEPS = 8
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
TOY: dict[str, dict[str, Any]] = {
    "2 blocks of 64, 32 rows": {
        "model": {"layers": 2, "hidden": 64, "heads": 2, "vocabulary": 512},
        "window": {"recent": 16, "causal": 16, "stride": 16}, "batch": {"size": 4, "micro": 2}},
}  # fmt: skip
RANKS = (1, 2)


def main() -> int:
    parser = options(__doc__, "plan_here.json")
    parser.add_argument("--turns", type=int, default=3, help="of calibration and steps (3)")
    parser.add_argument("--toy", action="store_true", help="one turn of a tiny model")
    parser.add_argument(
        "--take-steps", action="store_true", help="what each rank that this script starts does"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = TOY if arguments.toy else CASES
    if arguments.take_steps:
        print(json.dumps(steps(cases)), flush=True)
        return 0
    if arguments.toy:
        turns = [turn(["--toy"])]
    else:
        for number in range(arguments.turns):
            if f"turn {number}" not in done(arguments.out):
                keep(arguments.out, f"turn {number}", turn([]))
        turns = [done(arguments.out)[f"turn {number}"] for number in range(arguments.turns)]
    rows = [row(name, keys, ranks, turns) for name, keys in cases.items() for ranks in RANKS]
    heads = ["model, window", "ranks", "s predicted", "s measured", "error", "least and largest"]
    text = table(heads, rows, markdown=True)
    print(text)
    if not arguments.toy:
        write("here", f"{mark_of('benchmarks/plan_here.py')}\n\n{text}")
    return 0


def turn(more: list[str]) -> dict[str, Any]:
    """A calibration, and what rank 0 of one and of two ranks measured."""
    found: dict[str, Any] = {"device": to_dict(calibrate(torch.device("cpu")))}
    return found | {str(ranks): measured(ranks, more) for ranks in RANKS}


def measured(ranks: int, more: list[str]) -> dict[str, Any]:
    """Of new processes: ``steps`` of rank 0."""
    script = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), __file__]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, *script, "--take-steps", *more], env=environment, capture_output=True, text=True
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return next(line for line in lines if line["rank"] == 0)


def steps(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Seconds of each step of this rank, wall and CPU, by case; the first of each is not counted."""
    logging.getLogger("megarc").setLevel(logging.ERROR)
    configs = {name: configuration(name, keys) for name, keys in cases.items()}
    groups = start(read_rank_environment(), lambda: next(iter(configs.values())), timedelta(minutes=2)).groups
    found: dict[str, Any] = {"rank": groups.data.rank}
    for name, config in configs.items():
        engine = build_engine(config, groups)
        count = config.batch.size // groups.data.size // config.batch.micro_batch
        batches = [random_tokens(config, groups.device) for _ in range(count)]
        wall, cpu = [], []
        for _ in range(_STEPS + 1):
            begun = time.perf_counter(), time.process_time()
            float(engine.step(batches, 1e-4).loss)
            wall.append(time.perf_counter() - begun[0])
            cpu.append(time.process_time() - begun[1])
        engine.close()
        found[name] = {"wall": wall[1:], "cpu": cpu[1:]}
    disconnect()
    return found


def configuration(name: str, keys: dict[str, Any]) -> RunConfig:
    return build(RunConfig, {**keys, "parallel": {"zero": 0}, "device": "cpu"}, name)


def random_tokens(config: RunConfig, device: torch.device) -> MicroBatch:
    """A micro-batch of the run's window: what the tokens are does not matter to its time."""
    window, samples = config.window.build(), config.batch.micro_batch
    assert config.model.vocabulary is not None
    tokens = np.random.default_rng(0).integers(0, config.model.vocabulary, (samples, window.tokens))
    return to_tensors(Batch(tokens, np.full(samples, window.recent), np.arange(samples)), device)


def row(name: str, keys: dict[str, Any], ranks: int, turns: list[dict[str, Any]]) -> list[str]:
    """Medians over the turns, each of which is predicted from its own calibration."""
    config = configuration(name, keys)
    layout = Layout(
        data=ranks, zero=0, micro_batch=config.batch.micro_batch, recompute=config.execution.recompute
    )
    clock = "cpu" if ranks == 1 else "wall"
    seconds = [statistics.median(one[str(ranks)][name][clock]) for one in turns]
    devices = [build(DeviceConfig, one["device"], "calibration") for one in turns]
    predicted = [Planner(config, device).plan(layout).step.seconds for device in devices]
    errors = [100 * (told / seen - 1) for told, seen in zip(predicted, seconds, strict=True)]
    middle = [f"{statistics.median(values):.4f}" for values in (predicted, seconds)]
    spread = f"{min(errors):+.1f}, {max(errors):+.1f} %"
    return [name, str(ranks), *middle, f"{statistics.median(errors):+.1f} %", spread]


if __name__ == "__main__":
    run_script(main)
