"""Time and memory of one block, forward and backward, as R grows: attention against each other mixer, on this CPU.

    python benchmarks/mixers_cost.py                 the lengths that are not there yet; minutes
    python benchmarks/mixers_cost.py --longest 8192  up to there
    python benchmarks/mixers_cost.py --report        the table and the plot of what is there

Each measurement is the best of several turns, in which the mixers take turns. Attention is left out where it would take
minutes. Memory is what torch allocates for the block's forward and backward pass at its most, counted exactly
(``megarc.model.footprint``). The exponent of growth is the slope of log time over log R from R = 2,048 on.
"""

from __future__ import annotations

import json
import math
import time

from options import RESULTS, options
from stale import mark_of

from megarc.errors import run_script
from megarc.report import table

LENGTHS, CAUSAL = (512, 2048, 8192, 32768, 65536), 512
MIXERS = ("attention", "ssm", "ssm_attention", "crf")
LAST_OF_ATTENTION = 8192
KEYS = {"layers": 1, "hidden": 128, "heads": 4, "vocabulary": 256}
PLOT = RESULTS.parents[1] / "docs" / "pictures" / "mixers-cost.png"


def main() -> int:
    parser = options(__doc__, "mixers-cost.json")
    parser.add_argument("--longest", type=int, default=LENGTHS[-1], help="rows of R at most")
    parser.add_argument(
        "--turns", type=int, default=3, help="of each measurement; fewer where one takes long (3)"
    )
    parser.add_argument("--report", action="store_true", help="measures nothing")
    arguments = parser.parse_args()
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    if not arguments.report:
        for recent in LENGTHS:
            if recent <= arguments.longest and str(recent) not in known:
                known[str(recent)] = measured(recent, arguments.turns)
                arguments.out.write_text(json.dumps(known, indent=1) + "\n")
    report(known)
    plot(known)
    return 0


def measured(recent: int, turns: int) -> dict[str, dict[str, float]]:
    """Seconds and bytes of each mixer's block at this R."""
    import torch

    from megarc.model import ExecutionConfig, ModelConfig, Transformer, footprint, initialise
    from megarc.window import Window

    torch.set_num_threads(1)
    window, execution = Window(recent, CAUSAL, CAUSAL), ExecutionConfig()
    chosen = [name for name in MIXERS if name != "attention" or recent <= LAST_OF_ATTENTION]
    configs = {name: ModelConfig(mixers=name, **KEYS) for name in chosen}
    models = {name: Transformer(config) for name, config in configs.items()}
    for name, model in models.items():
        initialise(model, configs[name], 0)
    x = torch.randn(1, window.rows, KEYS["hidden"])
    best = dict.fromkeys(chosen, math.inf)
    for _ in range(turns if recent <= 8192 else 2):
        for name, model in models.items():
            given, start = x.clone().requires_grad_(), time.process_time()
            model.blocks[0](given, recent).sum().backward()
            best[name] = min(best[name], time.process_time() - start)
            print(f"R {recent}, {name}: {best[name]:.3f} s", flush=True)

    def held(config: ModelConfig) -> int:
        bare = footprint(
            config.model_copy(update={"layers": 0}), execution, window, 1, torch.float32, x.device
        )
        one = footprint(config, execution, window, 1, torch.float32, x.device)
        return one.kept + one.top - bare.top

    return {name: {"seconds": best[name], "bytes": held(config)} for name, config in configs.items()}


def report(known: dict[str, dict[str, dict[str, float]]]) -> None:
    rows = []
    for recent, found in known.items():
        base = found.get("attention")
        cells = []
        for name in MIXERS:
            one = found.get(name)
            ratio = (
                f" ({one['seconds'] / base['seconds']:.2f})" if one and base and name != "attention" else ""
            )
            cells.append(f"{one['seconds']:.3f}{ratio}" if one else "-")
        cells += [f"{found[name]['bytes'] / 2**20:.0f}" if name in found else "-" for name in MIXERS]
        rows.append([recent, *cells])
    rows.append(["exponent", *(f"{exponent(known, name):.2f}" for name in MIXERS), *[""] * len(MIXERS)])
    print(mark_of("benchmarks/mixers_cost.py"))
    columns = ["R", *(f"{name}, CPU-s" for name in MIXERS), *(f"{name}, MiB" for name in MIXERS)]
    print(table(columns, rows, markdown=True))


def exponent(known: dict[str, dict[str, dict[str, float]]], name: str) -> float:
    """The least squares' slope of log seconds over log R from 2,048 on."""
    points = [
        (math.log(int(recent)), math.log(found[name]["seconds"]))
        for recent, found in known.items()
        if name in found and int(recent) >= 2048
    ]
    if len(points) < 2:
        return math.nan
    middle = [sum(values) / len(points) for values in zip(*points, strict=True)]
    above = sum((x - middle[0]) * (y - middle[1]) for x, y in points)
    return above / sum((x - middle[0]) ** 2 for x, _ in points)


def plot(known: dict[str, dict[str, dict[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name in MIXERS:
        points = [(int(recent), found[name]["seconds"]) for recent, found in known.items() if name in found]
        if points:
            axes.loglog(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xlabel(f"rows of R (C = {CAUSAL})")
    axes.set_ylabel("CPU-seconds, forward and backward of a block")
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOT, dpi=120)


if __name__ == "__main__":
    run_script(main)
