"""Learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Callable

from megarc.errors import UserError
from megarc.train.config import RunConfig
from megarc.train.schedule.lengths import Lengths
from megarc.train.schedule.schedule_shape import Descent

LearningRate = Callable[[int], float]
"""The learning rate of step t, t = 0, 1, ... of the run."""


def learning_rate(config: RunConfig, whole: Lengths, here: Lengths) -> LearningRate:
    """The learning rate of each step.

    Its shape is one of samples, so that larger batches later do not change it; what they change is its
    height, by ``batch.rate``. Warm-up rises linearly and reaches the peak with its last step, so that no
    step is taken at 0.

    Args:
        whole: lengths of the run as its keys say, from its start.
        here: the same where it stands; they differ in a run that began from another's checkpoint.
    """
    batches, schedule = here.batches, config.schedule
    total = batches.samples_before(here.total)
    warmup, decay = whole.in_samples(schedule.warmup), whole.at_the_end(schedule.decay, total)
    _check(config, warmup, decay, total)

    descent = Descent(schedule, warmup if schedule.kind == "cosine" else total - decay, total)

    def rate(step: int) -> float:
        sample, size = batches.samples_before(step), batches.size(step)
        height = peak(config, size)
        if sample < warmup:
            return height * min(1.0, (sample + size) / warmup)
        return height * descent.share(sample)

    return rate


def peak(config: RunConfig, size: int) -> float:
    """The highest learning rate of steps of ``size`` samples: ``optimizer.lr`` by ``batch.rate``."""
    return config.optimizer.lr * float((size / config.batch.size) ** config.batch.power)


def _check(config: RunConfig, warmup: int, decay: int, total: int) -> None:
    """Raises a UserError where the parts of a schedule overlap: the rate would fall at once, by a step."""
    schedule = config.schedule
    if warmup > total:
        raise UserError(
            f"schedule.warmup is {warmup} samples, longer than the run's {total}; make it shorter, or length longer"
        )
    if schedule.kind == "wsd" and warmup + decay > total:
        raise UserError(
            f"schedule.warmup ({schedule.warmup}) and schedule.decay ({schedule.decay}) are {warmup} and {decay} "
            f"samples, together more than the run's {total}: the learning rate would fall by a step, in the middle "
            "of the decay; make one of them shorter, or length longer"
        )
