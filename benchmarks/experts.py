"""A training step of a mixture of experts against a dense model of the same active FLOPs, on this CPU.

    python benchmarks/experts.py               8 experts of which 2 are active; under a minute
    python benchmarks/experts.py --turns 10

A step is a forward and a backward pass of 8 windows of 512 rows and an update by torch's AdamW of all parameters. The
two models take turns in one process on one thread; each time is the best of its turns, in CPU-seconds. Printed and
written to benchmarks/results/experts.json.
"""

from __future__ import annotations

import json
import math
import time

from options import options
from stale import mark_of

from megarc.errors import run_script
from megarc.report import table

KEYS = {"layers": 4, "hidden": 256, "heads": 4, "ffn": 1024, "vocabulary": 256}
EXPERTS = {"count": 8, "active": 2, "balance": "bias"}
HALF, WINDOWS = 256, 8


def main() -> int:
    parser = options(__doc__, "experts.json")
    parser.add_argument("--turns", type=int, default=5, help="of each model (5)")
    arguments = parser.parse_args()
    found = measured(arguments.turns)
    ratio = found["experts"]["seconds"] / found["dense"]["seconds"]
    arguments.out.write_text(json.dumps({**found, "ratio": ratio}, indent=1) + "\n")
    columns = ["model", "parameters", "active", "GFLOPs a step", "CPU-seconds a step", "ratio"]
    rows = [
        [
            name, f"{one['parameters'] / 1e6:.1f}M", f"{one['active'] / 1e6:.1f}M", f"{one['flops'] / 1e9:.0f}",
            f"{one['seconds']:.2f}", f"{one['seconds'] / found['dense']['seconds']:.2f}",
        ]
        for name, one in found.items()
    ]  # fmt: skip
    print(mark_of("benchmarks/experts.py"), table(columns, rows, markdown=True), sep="\n\n")
    return 0


def measured(turns: int) -> dict[str, dict[str, float]]:
    """Of both models: parameters, FLOPs and the best time of a step."""
    import torch

    from megarc.model import ModelConfig, Transformer, cost_of, initialise
    from megarc.window import Window

    torch.set_num_threads(1)
    window = Window.split(HALF, HALF)
    configs = {"dense": ModelConfig(**KEYS), "experts": ModelConfig(**KEYS, experts=EXPERTS)}
    models = {name: Transformer(config) for name, config in configs.items()}
    for name, model in models.items():
        initialise(model, configs[name], 0)
    optimizers = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in models.items()}
    tokens = torch.randint(0, 256, (WINDOWS, window.tokens), generator=torch.Generator().manual_seed(0))
    best = dict.fromkeys(models, math.inf)
    for _ in range(turns):
        for name, model in models.items():
            start = time.process_time()
            model(tokens, window.loss_rows, window.recent).objective.backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            best[name] = min(best[name], time.process_time() - start)
    costs = {name: cost_of(config, window) for name, config in configs.items()}
    return {
        name: {
            "parameters": cost.parameters, "active": cost.active_parameters,
            "flops": WINDOWS * cost.training_flops, "seconds": best[name],
        }
        for name, cost in costs.items()
    }  # fmt: skip


if __name__ == "__main__":
    run_script(main)
