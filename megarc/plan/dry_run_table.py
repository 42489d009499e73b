"""A dry run as lines for people."""

from __future__ import annotations

from megarc.plan.dry_run import DryRun
from megarc.progress import human

_GIB = 2**30


def bytes_together(run: DryRun) -> float:
    """All that the rank holds at once."""
    activations = run.activation_bytes * run.in_flight + run.recomputed_bytes
    return run.weight_bytes + run.gradient_bytes + run.optimizer_bytes + activations


def as_table(run: DryRun) -> str:
    """Where the rank stands, what it holds, what it tells others in a step."""
    place, topology = run.topology.place(run.rank), run.topology
    names = run.layers if len(run.layers) <= 4 else [*run.layers[:2], "...", *run.layers[-2:]]
    lines = [
        f"rank {run.rank} of {topology.world}: tensor {place['tensor']} of {topology.tensor}"
        + (" (rows split between layers)" if topology.sequence else "")
        + (f", context {place['context']} of {topology.context}" if topology.context > 1 else "")
        + f", data {place['data']} of {topology.data}, stage {place['pipeline']} of {topology.pipeline}",
        f"layers        {len(run.layers)}: {', '.join(names)}",
        f"parameters    {human(run.parameters)}",
        "",
        f"{'memory':<38}{'GiB':>9}",
        f"{'weights':<38}{run.weight_bytes / _GIB:>9.3f}",
        f"{'gradients (float32)':<38}{run.gradient_bytes / _GIB:>9.3f}",
        f"{'masters and moments (ZeRO ' + str(run.zero) + ')':<38}{run.optimizer_bytes / _GIB:>9.3f}",
        f"{'activations, ' + str(run.in_flight) + ' micro-batches in flight':<38}"
        f"{run.activation_bytes * run.in_flight / _GIB:>9.3f}",
        f"{'one block, computed again':<38}{run.recomputed_bytes / _GIB:>9.3f}",
        f"{'together':<38}{bytes_together(run) / _GIB:>9.3f}",
        "",
        f"{'communication of a step':<34}{'group':>16}{'ranks':>7}{'times':>8}{'elements each':>15}",
    ]
    lines += [
        f"{one.what:<34}{one.group:>16}{one.ranks:>7}{one.times:>8}{human(one.elements):>15}"
        for one in run.collectives
    ]
    return "\n".join(lines if run.collectives else [*lines[:-1], "a step communicates nothing"])
