"""What the stack is held against: the same top model on the same held-out tokens, without what is claimed to help.

No gain counts unless it stands against all of these, at equal seeds:
    same compute   no roll-outs, trained for all the FLOPs that the whole stack took, on all of its data
    shuffled       roll-outs of other windows
    filler         a token that says nothing in every roll-out's place
    longer history history in the roll-outs' place
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megarc.quantity import Quantity
from megarc.tiers.stack_flops import flops_per_window, stack_flops
from megarc.tiers.stack_plan import HELDOUT, StackPlan
from megarc.train import Lengths, RunConfig

STACK = "stack"


@dataclass(frozen=True)
class Arm:
    """A top tier trained and scored under one condition.

    Attributes:
        trained_as: the arm whose model it is scored with, itself mostly.
        changes: keys of reading (``ReadingConfig``) that differ from the stack's.
        shorter: whether R has no rows for roll-outs at all.
    """

    name: str
    trained_as: str
    changes: Mapping[str, Any]
    shorter: bool = False


ARMS = (
    Arm(STACK, STACK, {}),
    Arm("no roll-outs, same compute", "same-compute", {"rollouts": []}, shorter=True),
    Arm("shuffled roll-outs", "shuffled", {"arm": "shuffled"}),
    Arm("filler", "filler", {"arm": "filler"}),
    Arm("longer history", "longer-history", {"rollouts": []}),
    Arm("stack, shown shuffled ones", STACK, {"arm": "shuffled"}),
    Arm("stack, shown none", STACK, {"rollouts": []}),
)


def arm_config(plan: StackPlan, arm: Arm, seed: int) -> RunConfig:
    """The run of an arm."""
    run = plan.run(plan.top)
    if arm.name == STACK and seed == run.seed:
        return run
    folder = plan.folder / "controls" / f"{arm.trained_as}-{seed}"
    run = run.model_copy(update={"seed": seed, "folder": folder})
    valid = [plan.reading_source(plan.top, HELDOUT, **{**arm.changes, "drop": 0.0})]
    if not arm.shorter:
        train = [plan.reading_source(plan.top, plan.top, **arm.changes)]
        data = run.data.model_copy(update={"train": train, "valid": valid})
        return run.model_copy(update={"data": data})
    window = run.window.model_copy(update={"recent": run.window.recent - rollout_rows(plan)})
    train = [plan.reading_source(plan.top, name, **arm.changes) for name in plan.own]
    data = run.data.model_copy(update={"train": train, "valid": valid, "blend": "epochs"})
    run = run.model_copy(update={"window": window, "data": data})
    steps = round(stack_flops(plan) / (run.batch.size * flops_per_window(plan, run)))
    return run.model_copy(update={"length": Quantity(steps, "steps")})


def rollout_rows(plan: StackPlan) -> int:
    """Rows of R that the top tier's roll-outs take, tags included."""
    writes = [plan.tier(name).writes for name in plan.reads(plan.top)]
    return sum(one.samples * (one.tokens + 2) for one in writes)


def arm_flops(plan: StackPlan, arm: Arm, config: RunConfig) -> float:
    """What an arm took, with everything that its roll-outs took."""
    own = Lengths(config).total * config.batch.size * flops_per_window(plan, config)
    if arm.changes.get("arm") == "filler" or "rollouts" in arm.changes:
        return own
    return stack_flops(plan)
