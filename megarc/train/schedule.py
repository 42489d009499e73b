"""Learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from megarc.errors import UserError
from megarc.train.config import RunConfig


def learning_rate(config: RunConfig) -> Callable[[int], float]:
    """The learning rate of step t, t = 0, 1, ... of the run.

    Warm-up rises linearly and reaches the peak with its last step, so that no
    step is taken at 0.
    """
    total = config.total_steps()
    schedule, peak = config.schedule, config.optimizer.lr
    warmup, decay = config.steps(schedule.warmup), config.steps(schedule.decay)
    if warmup > total:
        raise UserError(f"schedule.warmup is {warmup} steps, longer than the run's {total}")

    def cosine(step: int) -> float:
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * done))

    def stable_then_decay(step: int) -> float:
        left = (total - step) / max(1, decay)
        return schedule.final + (1 - schedule.final) * min(1.0, max(0.0, left))

    shape = {"cosine": cosine, "wsd": stable_then_decay, "constant": lambda _: 1.0}[schedule.kind]

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * shape(step)

    return rate
