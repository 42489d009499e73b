"""Tiers: models that read what models below them wrote.

In: a stack (``StackConfig``): its tiers' runs, splits, roll-outs. Out: roll-outs on
disk aligned with a source's boundaries, sources that show them in R, trained
tiers, what the top one gains over controls.

    tier 0 trains -> writes roll-outs at the boundaries of tier 1's split -> tier 1
    trains on [history | roll-outs | C] -> ... ; docs/tiers.md has the picture
"""

from typing import TYPE_CHECKING

from megarc.lazy_exports import open_when_used

if TYPE_CHECKING:
    from megarc.tiers.config import ReadingConfig, RolloutsConfig, StackConfig
    from megarc.tiers.controls import Controls, run_controls
    from megarc.tiers.leak_test import check_leaks
    from megarc.tiers.live_stack import LiveStack
    from megarc.tiers.rollout_job import make_rollouts
    from megarc.tiers.rollout_source import RolloutSource, makers
    from megarc.tiers.rollout_store import Rollouts
    from megarc.tiers.score import score_tiers
    from megarc.tiers.stack_plan import StackPlan, open_stack, write_keys
    from megarc.tiers.stage_runner import command, run_stack

__all__ = [
    "Controls",
    "LiveStack",
    "ReadingConfig",
    "RolloutSource",
    "Rollouts",
    "RolloutsConfig",
    "StackConfig",
    "StackPlan",
    "check_leaks",
    "command",
    "make_rollouts",
    "makers",
    "open_stack",
    "run_controls",
    "run_stack",
    "score_tiers",
    "write_keys",
]

open_when_used(__name__, __file__)
