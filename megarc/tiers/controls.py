"""What the stack is held against: the same top model on the same held-out tokens, without what is claimed to help.

No gain counts unless it stands against all of these, at equal seeds:
    same compute   no roll-outs, trained for all the FLOPs that the whole stack took, on all of its data
    shuffled       roll-outs of other windows
    filler         a token that says nothing in every roll-out's place
    longer history history in the roll-outs' place
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megarc.data import Maker, open_source
from megarc.model import cost_of
from megarc.progress import human, progress
from megarc.quantity import Quantity
from megarc.tiers.making import share_of_training
from megarc.tiers.plan import HELDOUT, StackPlan, Stage
from megarc.tiers.running import run_at_once
from megarc.tiers.score import Losses, losses_of, mean_of
from megarc.tiers.source import makers
from megarc.tiers.store import Rollouts
from megarc.train import RunConfig, RunFolder, find_checkpoint, load_model, run_config
from megarc.window import Window

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


@dataclass(frozen=True)
class Outcome:
    """An arm's losses, one for each seed, and what it took to get them."""

    arm: Arm
    window: Window
    steps: int
    flops: float
    losses: Sequence[Losses]


@dataclass(frozen=True)
class Controls:
    """The stack against its controls."""

    outcomes: Sequence[Outcome]
    seeds: Sequence[int]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows; a positive difference means that the arm is worse than the stack."""
        columns = ["arm", "rows of R", "steps", "FLOPs in all", "nats/token", "by seed", "above the stack"]
        columns += ["+- windows", "+- seeds"]
        stack, rows = self.outcomes[0], []
        for outcome in self.outcomes:
            mean = mean_of(list(outcome.losses))
            each = [losses.nats_per_token for losses in outcome.losses]
            row = [outcome.arm.name, outcome.window.recent, outcome.steps, human(outcome.flops)]
            row += [f"{mean.nats_per_token:.4f}", " ".join(f"{one:.4f}" for one in each)]
            if outcome is stack:
                rows.append([*row, None, None, None])
                continue
            above, error = mean.above(mean_of(list(stack.losses)))
            pairs = zip(outcome.losses, stack.losses, strict=True)
            spread = _error_of_mean([mine.above(theirs)[0] for mine, theirs in pairs])
            rows.append([*row, f"{above:+.4f}", f"{error:.4f}", spread and f"{spread:.4f}"])
        return columns, rows

    def gains(self) -> dict[str, list[float]]:
        """Nats that the stack is ahead of each trained control at the first, second, ... token after the boundary."""
        stack = mean_of(list(self.outcomes[0].losses)).by_distance()
        return {
            outcome.arm.name: list(np.asarray(mean_of(list(outcome.losses)).by_distance()) - stack)
            for outcome in self.outcomes[1:]
            if outcome.arm.trained_as != STACK
        }

    def words(self) -> str:
        """What it comes to, whatever that is."""
        stack = mean_of(list(self.outcomes[0].losses))
        verdicts = []
        for outcome in self.outcomes[1:]:
            if outcome.arm.trained_as == STACK:
                continue
            above, error = mean_of(list(outcome.losses)).above(stack)
            sure = abs(above) > 2 * error
            what = "ahead of" if above > 0 else "behind"
            verdicts.append(f"{'' if sure else 'not surely '}{what} '{outcome.arm.name}' ({above:+.4f})")
        held = self.outcomes[0].losses[0].tokens
        return (
            f"The stack is {'; '.join(verdicts)}: nats a token on the same {held} held-out tokens in every arm, mean "
            f"of {len(self.seeds)} seeds of the top tier. Sure means beyond two standard errors over windows."
        )


def run_controls(plan: StackPlan, inner: Mapping[str, Maker], scripts: Path) -> Controls:
    """Trains what is missing, scores every arm on the held-out windows.

    Raises:
        UserError: where a run fails; the same call goes on there.
    """
    seeds = plan.config.controls.seeds
    trained = [arm for arm in ARMS if arm.name == STACK or arm.trained_as != STACK]
    stages = [_stage(plan, arm, seed) for seed in seeds for arm in trained]
    run_at_once(plan, stages, scripts, plan.config.controls.at_once)
    outcomes = []
    with progress("scoring", len(ARMS) * len(seeds), unit="models") as bar:
        for arm in ARMS:
            base = next(one for one in ARMS if one.trained_as == arm.trained_as)
            config = arm_config(plan, base, seeds[0])
            losses = []
            for seed in seeds:
                losses.append(_score(plan, arm, arm_config(plan, base, seed), inner))
                bar.advance(1)
            steps = config.total_steps()
            outcomes.append(Outcome(arm, config.window.build(), steps, _flops(plan, base, config), losses))
    return Controls(outcomes, seeds)


def arm_config(plan: StackPlan, arm: Arm, seed: int) -> RunConfig:
    """The run of an arm."""
    run = plan.run(plan.top)
    if arm.name == STACK and seed == run.seed:
        return run
    reading = {"train": plan.reading_source(plan.top, plan.top, **arm.changes)}
    folder = plan.folder / "controls" / f"{arm.trained_as}-{seed}"
    run = run.model_copy(update={"seed": seed, "folder": folder})
    valid = plan.reading_source(plan.top, HELDOUT, **{**arm.changes, "drop": 0.0})
    if not arm.shorter:
        data = run.data.model_copy(update={"train": [reading["train"]], "valid": [valid]})
        return run.model_copy(update={"data": data})
    window = run.window.model_copy(update={"recent": run.window.recent - rollout_rows(plan)})
    run = run.model_copy(update={"window": window})
    train = [plan.reading_source(plan.top, name, **arm.changes) for name in _trained(plan)]
    data = run.data.model_copy(update={"train": train, "valid": [valid], "blend": "epochs"})
    steps = round(stack_flops(plan) / (run.batch.size * _per_window(plan, run)))
    return run.model_copy(update={"data": data, "length": Quantity(steps, "steps")})


def rollout_rows(plan: StackPlan) -> int:
    """Rows of R that the top tier's roll-outs take, tags included."""
    writes = [plan.tier(name).writes for name in plan.reads(plan.top)]
    return sum(one.samples * (one.tokens + 2) for one in writes)


def stack_flops(plan: StackPlan) -> float:
    """FLOPs of training every tier and of making the roll-outs that they were trained with."""
    total = 0.0
    for number, name in enumerate(plan.names):
        if plan.tier(name).huggingface is None:
            run = plan.run(name)
            total += run.total_steps() * run.batch.size * _per_window(plan, run)
        for writer in plan.names[:number]:
            total += _rollout_flops(plan, writer, name)
    return total


def _rollout_flops(plan: StackPlan, writer: str, reader: str) -> float:
    """Of a writer's roll-outs at every boundary of a reader's split."""
    if plan.tier(writer).huggingface is not None:
        return 0.0  # not ours: what it costs is not told here
    run, writes = run_config(find_checkpoint(plan.run(writer).folder)), plan.tier(writer).writes
    window = run.window.build()
    boundaries = Rollouts(plan.prefix(writer, reader)).facts.boundaries
    rows = min(window.rows, plan.window.recent + 1)
    share = share_of_training(run.model, window, writes.samples, writes.tokens, rows)
    return boundaries * share * cost_of(run.model, window).training_flops


def _per_window(plan: StackPlan, run: RunConfig) -> int:
    """Training FLOPs of a window; the vocabulary is the data's, which a trained run has told."""
    known = run_config(find_checkpoint(plan.run(_trained(plan)[0]).folder)).model.vocabulary
    model = run.model.model_copy(update={"vocabulary": known})
    return cost_of(model, run.window.build()).training_flops


def _flops(plan: StackPlan, arm: Arm, config: RunConfig) -> float:
    """What an arm took, with everything that its roll-outs took."""
    own = config.total_steps() * config.batch.size * _per_window(plan, config)
    if arm.changes.get("arm") == "filler" or "rollouts" in arm.changes:
        return own
    return stack_flops(plan)


def _trained(plan: StackPlan) -> list[str]:
    return [name for name in plan.names if plan.tier(name).huggingface is None]


def _stage(plan: StackPlan, arm: Arm, seed: int) -> Stage:
    config = arm_config(plan, arm, seed)
    file = plan.folder / "controls" / "stages" / f"{arm.trained_as}-{seed}.yaml"
    return Stage(f"{arm.trained_as}-{seed}", "pretrain.py", config, config.folder, file)


def _score(plan: StackPlan, arm: Arm, config: RunConfig, inner: Mapping[str, Maker]) -> Losses:
    window = config.window.build()
    source = open_source(
        plan.reading_source(plan.top, HELDOUT, **{**arm.changes, "drop": 0.0}), window, makers(inner)
    )
    return losses_of(load_model(RunFolder(config.folder).path), source, window)


def score_tiers(plan: StackPlan, inner: Mapping[str, Maker]) -> dict[str, Losses]:
    """Each tier of ours on the same tokens: C of the held-out windows, read as each tier reads."""
    found = {}
    for name in _trained(plan):
        saved, config = load_model(plan.run(name).folder), plan.config.heldout
        window = plan.window.build()
        if plan.reads(name):
            window = saved.config.window.build()
            config = plan.reading_source(name, HELDOUT, drop=0.0)
        found[name] = losses_of(saved, open_source(config, window, makers(inner)), window)
    return found


def _error_of_mean(values: Sequence[float]) -> float | None:
    """Of the mean over seeds; None for a single one."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
