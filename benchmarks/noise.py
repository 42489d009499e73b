"""What measuring the noise scale costs a step, on this machine's CPU, one rank.

    python benchmarks/noise.py                       configs/models/1M.yaml and 10M.yaml
    python benchmarks/noise.py --model 124M --repeats 5

Steps with and without a measurement alternate in one process; CPU time, of which other jobs on the machine take
no part, the least of each. Written to benchmarks/results/noise.json.
"""

from __future__ import annotations

import json
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
from megarc.train import RunConfig, build_engine, resolve, to_tensors
from megarc.train.metrics.noise_scale import GroupSquares

ROOT = Path(__file__).resolve().parents[1]
KEYS = [
    "window.recent=24",
    "window.causal=16",
    "window.stride=16",
    "data.train=[{kind: pointer_chase}]",
    "model.vocabulary_multiple=2048",
    "batch.size=32",
    "batch.micro=16",
]


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--model", action="append", help="a file of configs/models (1M and 10M)")
    parser.add_argument("--repeats", type=int, default=15, help="pairs of steps (15)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    groups = connect(meet(read_rank_environment()), "cpu")
    facts = {model: measure(model, groups, arguments.repeats) for model in arguments.model or ["1M", "10M"]}
    disconnect()
    columns = ["model", "ms a step", "ms with a measurement", "more, %", "every 10 steps, %"]
    rows = [
        [model, *(f"{one[name]:.2f}" for name in ("plain_ms", "measured_ms", "percent", "percent_every_10"))]
        for model, one in facts.items()
    ]
    print(table(columns, rows))
    out = ROOT / "benchmarks" / "results" / "noise.json"
    out.write_text(json.dumps({"torch": torch.__version__, "keys": KEYS, "models": facts}, indent=1) + "\n")
    return 0


def measure(model: str, groups, repeats: int) -> dict:
    """The least CPU time of a step, without and with the hooks at work and the sum at the end."""
    config = load(RunConfig, ROOT / "configs" / "models" / f"{model}.yaml", KEYS)
    stream = open_stream(config.data, "train", config.window.build(), 0, makers=MAKERS)
    config = resolve(config, stream, groups.topology)
    engine = build_engine(config, groups)
    squares = GroupSquares(groups, config.model.tied)
    engine.before_reduce(squares)
    batches = [to_tensors(stream.read(at, 16), groups.device) for at in (0, 16)]
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats + 1):
        for squares.armed in times:
            begun = time.process_time()
            engine.step(batches, 1e-4)
            if squares.armed:
                float(squares.mean())
            times[squares.armed].append(time.process_time() - begun)
    engine.close()
    plain, measured = (1e3 * min(found[1:]) for found in times.values())
    percent = 100 * (measured / plain - 1)
    return {"plain_ms": plain, "measured_ms": measured, "percent": percent, "percent_every_10": percent / 10}


if __name__ == "__main__":
    run_script(main)
