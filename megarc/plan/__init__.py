"""What a run will need and how long it will take, before it starts.

In: a configuration, a number of ranks, a device. Out: one rank's parameters,
bytes and collectives, from that rank's real part run with fake tensors on this
machine; the time of a step by part; every layout over so many devices, best first.
"""

from typing import TYPE_CHECKING

from megarc.lazy_exports import open_when_used

if TYPE_CHECKING:
    from megarc.plan.advice import Outlook, best_three, outlook
    from megarc.plan.calibrate import calibrate
    from megarc.plan.device import DeviceConfig, find_device
    from megarc.plan.dry_run import DryRun, dry_run
    from megarc.plan.dry_run_table import as_table
    from megarc.plan.known_devices import KNOWN
    from megarc.plan.layout_words import parse_layout
    from megarc.plan.memory import Memory, memory_table, predict
    from megarc.plan.memory_advice import explain_memory
    from megarc.plan.memory_terms import memory_terms
    from megarc.plan.memory_tracking import Measuring, explained_memory
    from megarc.plan.run_file import write_run_file
    from megarc.plan.search import Layout, Plan, Planner
    from megarc.plan.step import PARTS
    from megarc.plan.time_to_train import time_over_gpus
    from megarc.plan.what_fits import what_would_fit

open_when_used(__name__, __file__)

__all__ = [
    "KNOWN",
    "PARTS",
    "DeviceConfig",
    "DryRun",
    "Layout",
    "Measuring",
    "Memory",
    "Outlook",
    "Plan",
    "Planner",
    "as_table",
    "best_three",
    "calibrate",
    "dry_run",
    "explain_memory",
    "explained_memory",
    "find_device",
    "memory_table",
    "memory_terms",
    "outlook",
    "parse_layout",
    "predict",
    "time_over_gpus",
    "what_would_fit",
    "write_run_file",
]
