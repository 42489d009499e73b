"""Recipes compared at equal compute: causal, [R | C], late [R | C], a mix, with and without a loss on R.

In: a ``CompareConfig`` and what trains one run. Out: every try as a line of JSON, the best of each arm, a verdict.
"""

from megarc.science.recipes.arms import (
    ARMS,
    CAUSAL,
    arm_config,
    budget_of,
    control_of,
    flops_of,
    targets_window,
)
from megarc.science.recipes.campaign import Campaign, Result, Try, verdict
from megarc.science.recipes.config import CompareConfig
from megarc.science.recipes.score import Scored, score
from megarc.science.statistics import Difference, paired

__all__ = [
    "ARMS",
    "CAUSAL",
    "Campaign",
    "CompareConfig",
    "Difference",
    "Result",
    "Scored",
    "Try",
    "arm_config",
    "budget_of",
    "control_of",
    "flops_of",
    "paired",
    "score",
    "targets_window",
    "verdict",
]
