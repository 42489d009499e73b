"""How many samples a step should take, and how many of them at once.

In: tables of (batch, steps), run configurations. Out: a critical batch with its interval, a
micro-batch, and the keys of a run that uses both, each with its reason.
"""

from megarc.batchsize.critical import CriticalBatch, Fit, critical_batch, fit_steps
from megarc.batchsize.power_law import PowerLaw, fit_power_law
from megarc.batchsize.table import StepsTable, read_steps

__all__ = [
    "CriticalBatch",
    "Fit",
    "PowerLaw",
    "StepsTable",
    "critical_batch",
    "fit_power_law",
    "fit_steps",
    "read_steps",
]
