"""How many samples a step should take, and how many of them at once.

In: tables of (batch, steps), run configurations. Out: a critical batch with its interval, a
micro-batch, and the keys of a run that uses both, each with its reason.
"""

from megarc.batchsize.branches import Decision, branch_jobs, decide, find_trunk, trunk_job
from megarc.batchsize.config import StudyConfig
from megarc.batchsize.critical import CriticalBatch, Fit, critical_batch, fit_steps
from megarc.batchsize.micro_batch_probe import Probe
from megarc.batchsize.micro_batch_search import Forecast, Trial, knee, search, usable
from megarc.batchsize.power_law import PowerLaw, fit_power_law
from megarc.batchsize.recommendation import Choice, as_yaml, choices
from megarc.batchsize.steps_table import StepsTable, read_steps
from megarc.batchsize.sweep import outcome, sweep_jobs

__all__ = [
    "Choice",
    "CriticalBatch",
    "Decision",
    "Fit",
    "Forecast",
    "PowerLaw",
    "Probe",
    "StepsTable",
    "StudyConfig",
    "Trial",
    "as_yaml",
    "branch_jobs",
    "choices",
    "critical_batch",
    "decide",
    "find_trunk",
    "fit_power_law",
    "fit_steps",
    "knee",
    "outcome",
    "read_steps",
    "search",
    "sweep_jobs",
    "trunk_job",
    "usable",
]
