"""How much faster two processes train that share each window's rows (parallel.context=2) than one that has them all.

    python benchmarks/context.py                  n = 4096, r = 2048, 12 rounds; a minute on two quiet cores
    python benchmarks/context.py --rows 256 --rounds 2      a toy

One thread a process. One process and two take a step in turn, in one run, so that a busy machine slows both; whoever
waits sleeps. Printed and written to benchmarks/results/context.json: the least seconds of a step of each and their
ratio; and the same by CPU time, of which other jobs on the machine take no part, of the busier of the two ranks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from options import options

from megarc.config import build
from megarc.data import Batch
from megarc.errors import run_script
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import free_port, read_rank_environment
from megarc.report import table
from megarc.train import RunConfig, build_engine, to_tensors

_RANK = "MEGARC_CONTEXT_BENCHMARK"  # the keys of a rank, in its environment


def main() -> int:
    if _RANK in os.environ:
        return rank(json.loads(os.environ[_RANK]))
    parser = options(__doc__, "context.json")
    parser.add_argument("--rows", type=int, default=4096, help="of a window, half of them R (4096)")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model (256)")
    parser.add_argument("--layers", type=int, default=4, help="of the model (4)")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each (12)")
    arguments = parser.parse_args()
    keys = {
        "window": {"recent": arguments.rows // 2, "causal": arguments.rows // 2},
        "model": {"hidden": arguments.hidden, "layers": arguments.layers, "heads": arguments.hidden // 64,
                  "kv_heads": max(1, arguments.hidden // 128), "vocabulary": 1024},
        "batch": {"size": 1, "micro": 1},
        "health": {"self_check": "off"},
    }  # fmt: skip
    one, two = started(keys, 1), started(keys, 2)
    steps: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for number in range(arguments.rounds + 1):
        for ranks in (one, two):
            found = taken(ranks)
            if number:  # the first one allocates
                steps[len(ranks)].append((max(wall for wall, _ in found), max(cpu for _, cpu in found)))
    for process in (*one, *two):
        process.stdin.close()
        process.wait()
    facts = {"keys": keys, "torch": torch.__version__}
    rows = []
    for place, what in enumerate(("seconds", "CPU seconds")):
        least = {ranks: min(step[place] for step in taken) for ranks, taken in steps.items()}
        facts[what] = {"one": least[1], "two": least[2], "ratio": least[1] / least[2]}
        rows.append([what, f"{least[1]:.3f}", f"{least[2]:.3f}", f"{least[1] / least[2]:.2f}"])
    print(table(["least of a step", "one process", "context 2", "ratio"], rows))
    arguments.out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


def started(keys: dict[str, Any], world: int) -> list[subprocess.Popen[str]]:
    """The ranks of a world, which wait for a line for each step."""
    place = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    keys = {**keys, "parallel": {"context": world}}
    return [
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **place, "RANK": str(number), "LOCAL_RANK": str(number), "OMP_NUM_THREADS": "1",
                 _RANK: json.dumps(keys)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(world)
    ]  # fmt: skip


def taken(ranks: list[subprocess.Popen[str]]) -> list[tuple[float, float]]:
    """One step of all: wall and CPU seconds of each."""
    for process in ranks:
        assert process.stdin is not None
        process.stdin.write("step\n")
        process.stdin.flush()
    found = []
    for process in ranks:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("step ")), None)
        assert line is not None, "a rank ended"
        wall, cpu = line.split()[1:]
        found.append((float(wall), float(cpu)))
    return found


def rank(keys: dict[str, Any]) -> int:
    """Takes a step for each line that comes."""
    torch.set_num_threads(1)
    config = build(RunConfig, keys, "the benchmark")
    groups = connect(meet(read_rank_environment()), "cpu", context=config.parallel.context)
    engine = build_engine(config, groups)
    window = config.window.build()
    chance = np.random.default_rng(0)
    for _ in sys.stdin:
        tokens = chance.integers(0, 1024, (1, window.tokens)).astype(np.int32)
        batch = Batch(tokens, np.array([window.recent], np.int32), np.zeros(1, np.int64))
        wall, cpu = time.perf_counter(), time.process_time()
        loss = engine.step([to_tensors(batch, groups.device, sharing=engine.sharing)], 1e-4).loss
        float(loss)
        print("step", time.perf_counter() - wall, time.process_time() - cpu, flush=True)
    engine.close()
    disconnect()
    return 0


if __name__ == "__main__":
    run_script(main)
