"""How fast theory tasks are made: tokens a CPU-second of each, in batches as a run reads them.

python benchmarks/tasks.py        # seconds; results in benchmarks/results/tasks.json
"""

from __future__ import annotations

import json
import time

import numpy as np
from options import options

from megarc.atomic_write import written_atomically
from megarc.config import build
from megarc.data import SourceConfig
from megarc.errors import run_script
from megarc.report import table
from megarc.science import MAKERS
from megarc.science.tasks import KINDS
from megarc.window import Window

BATCHES, SAMPLES, TURNS = 10, 256, 5
ASKED = {
    "k_sum": [{"terms": 2}, {"terms": 3}],
    "turing_trace": [{"ask": "direct"}, {"ask": "trace"}, {"ask": "interpreter"}],
}


def main() -> int:
    arguments = options(__doc__, "tasks.json").parse_args()
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        for keys in ASKED.get(kind, [{}]):
            name = " ".join([kind, *(str(value) for value in keys.values())])
            found[name] = speed(kind, keys)
    with written_atomically(arguments.out) as file:
        file.write((json.dumps(found, indent=1) + "\n").encode())
    rows = [
        [name, f"{one['tokens']:.0f}", f"{one['million_tokens_per_cpu_second']:.1f}"]
        for name, one in found.items()
    ]
    print(table(["task", "tokens a sample", "M tokens a CPU-second"], rows))
    return 0


def speed(kind: str, keys: dict[str, object]) -> dict[str, float]:
    """The best of some turns: other work on the machine only slows them."""
    length = KINDS[kind].length_of(build(KINDS[kind].options, keys, kind))
    source = MAKERS[kind](SourceConfig(kind=kind, options=keys), Window(0, length - 1, length - 1))
    rates = []
    for turn in range(TURNS):
        begun = time.process_time()
        for batch in range(BATCHES):
            first = (turn * BATCHES + batch) * SAMPLES
            source.read_many(np.arange(first, first + SAMPLES))  # type: ignore[attr-defined]
        rates.append(BATCHES * SAMPLES * length / (time.process_time() - begun) / 1e6)
    return {"tokens": length, "million_tokens_per_cpu_second": round(max(rates), 1)}


if __name__ == "__main__":
    run_script(main)
