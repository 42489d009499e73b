"""How far predicted speeds are from published ones that the fitted numbers have never seen.

    python benchmarks/plan_held_out.py       writes docs/plan.md's table of held-out errors; 35 CPU-seconds
    python benchmarks/plan_held_out.py --fit    prints each generation's shares, fitted to all of its rows

The shares of the peaks (``ReachedConfig``, at most four a generation of devices) are fitted anew for each source of
rows, to the rows of the other sources, and of Blackwell, which has one source, for each row to the others. Always the
same fit: from the middle of the range, each share in turn to the value of a grid that makes the mean of the absolute
errors least, twice over.
"""

from __future__ import annotations

import json
from typing import Any

from options import options
from plan import summary, write
from published import ROWS, Row
from stale import mark_of

from megarc.config import build
from megarc.errors import run_script
from megarc.parallel import Topology
from megarc.plan import DeviceConfig, Planner, find_device
from megarc.plan.links import Links
from megarc.plan.step import Costs, step_time
from megarc.plan.work import Work
from megarc.report import table
from megarc.train import RunConfig

GENERATIONS = {
    "a100": "Ampere",
    "h100": "Hopper",
    "h200": "Hopper",
    "b200": "Blackwell",
    "gb200": "Blackwell",
}
GRID = {
    "product": [0.45 + 0.03 * step for step in range(11)],
    "attention": [0.25 + 0.05 * step for step in range(7)],
    "memory": [0.70 + 0.06 * step for step in range(5)],
    "fp8": [0.40 + 0.03 * step for step in range(9)],
}
START = {"product": 0.6, "attention": 0.4, "memory": 0.85, "fp8": 0.55}
_ALL = 0.5  # weight of a row that is not asked for, in the fit to all rows
Shares = dict[str, float]


class Case:
    """A published row, traced once: seconds of its step for any shares."""

    def __init__(self, row: Row) -> None:
        self.row, self.device = row, find_device(row.device)
        self.generation = GENERATIONS[row.device.split("-")[0]]
        self.group = (
            row.source if self.generation != "Blackwell" else f"{row.source} {row.model} {row.device}"
        )
        config = build(RunConfig, row.keys, row.model)
        parallel = config.parallel
        self.topology = Topology.fit(
            row.gpus, tensor=parallel.tensor, pipeline=parallel.pipeline, sequence=parallel.tensor > 1
        )
        planner = Planner(config, self.device)
        sizes = [config.batch.micro]
        if sizes == [None]:
            sizes = [size for size in planner.micro_batches(self.topology.data) if size <= 8]
        self.ways: list[tuple[RunConfig, Work]] = []
        for size in sizes:
            sized = config.model_copy(update={"batch": config.batch.model_copy(update={"micro": size})})
            place = (parallel.tensor, parallel.tensor > 1, config.execution.recompute, size)
            self.ways.append((sized, planner.traces.work(*place)))

    def seconds(self, shares: Shares) -> float:
        reached = self.device.reached.model_copy(update=shares)
        device: DeviceConfig = self.device.model_copy(update={"reached": reached})
        link = Links.of(self.topology, device).tensor
        return min(
            step_time(config, self.topology, device, Costs.of(config, device, work, link)).seconds
            for config, work in self.ways
        )

    def error(self, shares: Shares) -> float:
        return self.seconds(shares) / self.row.seconds - 1


def main() -> int:
    parser = options(__doc__, "plan_held_out.json")
    parser.add_argument(
        "--fit", action="store_true", help="print shares fitted to all rows, and write nothing"
    )
    arguments = parser.parse_args()
    cases = [Case(row) for row in ROWS]
    if arguments.fit:
        for generation in dict.fromkeys(case.generation for case in cases):
            own = [case for case in cases if case.generation == generation]
            print(generation, {name: f"{value:.3f}" for name, value in fitted(own, _ALL).items()})
        return 0
    found: list[dict[str, Any]] = []
    for generation in dict.fromkeys(case.generation for case in cases):
        own = [case for case in cases if case.generation == generation]
        for group in dict.fromkeys(case.group for case in own):
            shares = fitted([case for case in own if case.group != group])
            for case in own:
                if case.group == group:
                    found.append(line(case, shares))
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    heads = ["source", "model, window", "device", "GPUs", "fitted without it", "error", "asked"]
    text = table(heads, [list(one.values()) for one in found], markdown=True) + "\n\n" + summary(found)
    print(text)
    write("held-out", f"{mark_of('benchmarks/plan_held_out.py')}\n\n{text}")
    return 0


def line(case: Case, shares: Shares) -> dict[str, Any]:
    row = case.row
    words = ", ".join(f"{value:.2f}" for value in shares.values())
    return {
        "source": row.source, "model": row.model, "device": row.device, "gpus": row.gpus, "shares": words,
        "error": f"{100 * case.error(shares):+.1f} %", "asked": "yes" if row.asked else "",
    }  # fmt: skip


def fitted(cases: list[Case], unasked: float = 1.0) -> Shares:
    """Shares of least mean absolute error; a row that is not asked for weighs ``unasked``."""
    shares = dict(START)
    for _ in range(2):
        for name, values in GRID.items():
            if name == "fp8" and not any(case.device.fp8 for case in cases):
                continue
            losses = {value: loss(cases, shares | {name: value}, unasked) for value in values}
            shares[name] = min(losses, key=lambda value: losses[value])
    return shares


def loss(cases: list[Case], shares: Shares, unasked: float) -> float:
    weights = [1.0 if case.row.asked else unasked for case in cases]
    return sum(weight * abs(case.error(shares)) for case, weight in zip(cases, weights, strict=True)) / sum(
        weights
    )


if __name__ == "__main__":
    run_script(main)
