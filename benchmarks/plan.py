"""Predicted training speeds against published ones.

    python benchmarks/plan.py                every published row (benchmarks/published.py); writes docs/plan.md's table

Printed, written to benchmarks/results/plan.json, and to the page between its marks.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from options import options
from published import ROWS, Row
from stale import mark_of

from megarc.config import build
from megarc.errors import run_script
from megarc.parallel import Topology
from megarc.plan import Layout, Plan, Planner, find_device
from megarc.progress import progress
from megarc.report import table
from megarc.train import RunConfig

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/plan.md"


def main() -> int:
    parser = options(__doc__, "plan.json")
    arguments = parser.parse_args()
    with progress("rows", len(ROWS)) as bar:
        found = [compared(row, bar) for row in ROWS]
    heads = [
        "source",
        "model, window",
        "device",
        "GPUs",
        "micro",
        "s predicted",
        "s published",
        "error",
        "asked",
    ]
    cells = [list(one.values()) for one in found]
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    text = table(heads, cells, markdown=True)
    print(text)
    print(summary(found))
    text += "\n\n" + summary(found)
    write("published", f"{mark_of('benchmarks/plan.py')}\n\n{text}")
    return 0


def compared(row: Row, bar: Any = None) -> dict[str, Any]:
    """One published row, as a line of the table."""
    plan = predicted(row)
    if bar is not None:
        bar.advance(1)
    return {
        "source": row.source, "model": row.model, "device": row.device, "gpus": row.gpus,
        "micro": plan.layout.micro_batch, "predicted": f"{plan.step.seconds:.3f}", "published": f"{row.seconds:.3f}",
        "error": f"{100 * (plan.step.seconds / row.seconds - 1):+.1f} %", "asked": "yes" if row.asked else "",
    }  # fmt: skip


def predicted(row: Row) -> Plan:
    """Of the row's layout; where its micro-batch is not published, the fastest that fits."""
    config = build(RunConfig, row.keys, row.model)
    parallel = config.parallel
    topology = Topology.fit(row.gpus, tensor=parallel.tensor, pipeline=parallel.pipeline)
    planner = Planner(config, find_device(row.device))
    layout = Layout(
        tensor=parallel.tensor, pipeline=parallel.pipeline, data=topology.data, sequence=parallel.tensor > 1,
        zero=parallel.zero, recompute=config.execution.recompute, micro_batch=config.batch.micro or 1,
    )  # fmt: skip
    if config.batch.micro is not None:
        return planner.plan(layout)
    return planner.one(layout, [size for size in planner.micro_batches(topology.data) if size <= 8])[0]


def summary(found: list[dict[str, Any]]) -> str:
    """How many rows are how near, of those that the project is held to and of the others."""
    lines = []
    for words, asked in (("Rows that the project is held to", "yes"), ("Other rows", "")):
        errors = [abs(float(one["error"].split()[0])) for one in found if one["asked"] == asked]
        near = sum(error <= 10 for error in errors)
        lines.append(
            f"{words}: {near} of {len(errors)} within 10 %, {sum(error > 20 for error in errors)} beyond 20 %, mean "
            f"error {sum(errors) / len(errors):.1f} %."
        )
    return " ".join(lines)


def write(name: str, text: str) -> None:
    """Between the page's marks of that name."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n\n{text}\n\n{end}", page, flags=re.S))


if __name__ == "__main__":
    run_script(main)
