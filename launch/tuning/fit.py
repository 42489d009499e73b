"""`tune_batch.py critical`: tables of (batch, steps) to a critical batch."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from megarc.batchsize import CriticalBatch, critical_batch, fit_power_law, read_steps
from megarc.errors import UserError


def critical(arguments: argparse.Namespace) -> int:
    """Fits tables; with sizes, the power law over them."""
    sizes = arguments.size or []
    if sizes and len(sizes) != len(arguments.table):
        raise UserError(f"{len(arguments.table)} tables and {len(sizes)} sizes; give --size once a --table")
    if arguments.extrapolate and len(sizes) < 2:
        raise UserError("--extrapolate needs two tables or more, each with its --size")
    found = {
        path: critical_batch(
            read_steps(path, arguments.tolerance), arguments.optimal_batch, overhead=arguments.overhead
        )
        for path in arguments.table
    }
    for path, answer in found.items():
        print(words(path, answer))
    facts = [{"table": str(path), **as_json(answer)} for path, answer in found.items()]
    if len(sizes) < 2:
        print(json.dumps({**facts[0], "tables": facts[1:]} if facts[1:] else facts[0]))
        return 0
    law = fit_power_law([(size, answer.batch) for size, answer in zip(sizes, found.values(), strict=True)])
    print(f"over sizes: critical batch = {law}" + (", through two points" if len(sizes) == 2 else ""))
    reached = {f"{size:g}": law.at(size) for size in arguments.extrapolate or []}
    for size, batch in reached.items():
        print(f"  at size {size}: {batch:.0f}, extrapolated")
    power = {"scale": law.scale, "exponent": law.exponent, "extrapolated": reached}
    print(json.dumps({"tables": facts, "power_law": power}))
    return 0


def words(path: Path, answer: CriticalBatch) -> str:
    """For people."""
    lines = [
        f"{path}: steps = {answer.fit.a:.1f} + {answer.fit.b:.4g} / batch",
        f"  critical batch {answer.batch:.1f} ({100 * answer.overhead:g} % more steps than linear scaling "
        f"from {answer.optimal:g}), 95 % interval {interval(answer.interval)}",
    ]
    lines += [
        f"  at {100 * overhead:g} %: {batch:.1f}, {interval(bounds)}"
        for overhead, (batch, bounds) in answer.overheads.items()
        if overhead != answer.overhead
    ]
    if answer.beyond:
        lines.append("  it lies beyond the largest batch of the table: take it as extrapolated")
    if math.isinf(answer.interval[1]):
        lines.append("  these data do not bound it from above: add larger batches")
    return "\n".join(lines)


def interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.1f} to " + (f"{bounds[1]:.1f}" if math.isfinite(bounds[1]) else "no upper bound")


def as_json(answer: CriticalBatch) -> dict[str, Any]:
    """The same, for programs; an end that the data do not give is null."""

    def bounds(pair: tuple[float, float]) -> list[float | None]:
        return [value if math.isfinite(value) else None for value in pair]

    return {
        "critical_batch": answer.batch,
        "interval": bounds(answer.interval),
        "overhead": answer.overhead,
        "optimal_batch": answer.optimal,
        "a": answer.fit.a,
        "b": answer.fit.b,
        "overheads": {
            f"{overhead:g}": {"critical_batch": batch, "interval": bounds(pair)}
            for overhead, (batch, pair) in answer.overheads.items()
        },
        "extrapolated": answer.beyond,
    }
