"""What a run will need, before it starts.

In: a configuration, a number of ranks. Out: one rank's parameters, bytes and
collectives, from that rank's real part run with fake tensors on this machine.
"""

from megarc.plan.dry_run import DryRun, dry_run
from megarc.plan.dry_run_table import as_table
from megarc.plan.memory import Memory, memory_table, predict
from megarc.plan.memory_advice import explain_memory
from megarc.plan.memory_tracking import Measuring, explained_memory

__all__ = [
    "DryRun",
    "Measuring",
    "Memory",
    "as_table",
    "dry_run",
    "explain_memory",
    "explained_memory",
    "memory_table",
    "predict",
]
