"""The stack against its controls: trained, scored on the same tokens, compared in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megarc.data import Maker, open_source
from megarc.progress import human, progress
from megarc.tiers.control_arms import ARMS, STACK, Arm, arm_config, arm_flops
from megarc.tiers.rollout_source import makers
from megarc.tiers.score import Losses, losses_of, mean_of
from megarc.tiers.stack_plan import HELDOUT, StackPlan, Stage
from megarc.tiers.stage_runner import run_at_once
from megarc.train import Lengths, RunConfig, load_model
from megarc.window import Window


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
            f"of {len(self.seeds)} seeds of the top tier. A difference is sure beyond two standard "
            "errors over windows."
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
            steps = Lengths(config).total
            outcomes.append(Outcome(arm, config.window.build(), steps, arm_flops(plan, base, config), losses))
    return Controls(outcomes, seeds)


def _stage(plan: StackPlan, arm: Arm, seed: int) -> Stage:
    config = arm_config(plan, arm, seed)
    file = plan.folder / "controls" / "stages" / f"{arm.trained_as}-{seed}.yaml"
    return Stage(f"{arm.trained_as}-{seed}", "pretrain.py", config, config.folder, file)


def _score(plan: StackPlan, arm: Arm, config: RunConfig, inner: Mapping[str, Maker]) -> Losses:
    window = config.window.build()
    source = open_source(
        plan.reading_source(plan.top, HELDOUT, **{**arm.changes, "drop": 0.0}), window, makers(inner)
    )
    return losses_of(load_model(config.folder), source, window)


def _error_of_mean(values: Sequence[float]) -> float | None:
    """Of the mean over seeds; None for a single one."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
