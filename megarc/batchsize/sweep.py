"""Steps to a held-out loss at several batches, seeds and rates: each a normal run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from megarc.batchsize.config import StudyConfig
from megarc.errors import UserError
from megarc.jobs import Job
from megarc.quantity import Quantity
from megarc.train import Lengths

_POWER = {"sqrt": 0.5, "linear": 1.0, "none": 0.0}


class Cell(NamedTuple):
    """One run of the sweep."""

    batch: int
    rate: float  # a factor of the peak rate, beside the rule
    seed: int


class Curve(NamedTuple):
    """Held-out losses of a run: ``steps`` and ``losses`` [points], in the order of steps."""

    steps: list[int]
    losses: list[float]

    def steps_to(self, target: float) -> float | None:
        """The first step with a loss of ``target``, between two points a straight line; None: never."""
        before: tuple[float, float] | None = None
        for step, loss in zip(self.steps, self.losses, strict=True):
            if loss <= target:
                if before is None:
                    return float(step)
                share = (before[1] - target) / (before[1] - loss)
                return before[0] + share * (step - before[0])
            before = (step, loss)
        return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Steps to the target at the best rate of each batch.

    Attributes:
        points: ``(batch, steps)`` of each seed.
        rates: batch -> the rate's factor that needs the fewest steps, over the seeds.
        noise: ``(batch, noise scale)`` of each of these runs, averaged up to the target; where it is known.
    """

    target: float
    points: list[tuple[float, float]]
    rates: dict[int, float]
    noise: list[tuple[float, float]]


def sweep_jobs(study: StudyConfig) -> dict[Cell, Job]:
    """A run for each batch, rate and seed, with a constant rate after the warm-up.

    A run of batch B takes the samples of ``length`` and ``floor`` steps more; warm-up is in samples, as long
    for all. Its batch is two micro-batches a data rank where it can be, so that the noise scale is defined.

    Raises:
        UserError: where there is no held-out data.
    """
    if not study.data.valid:
        raise UserError("steps to a loss need held-out data; give data.valid")
    keys = study.tune.steps
    cells = [Cell(batch, rate, seed) for batch in keys.batches for rate in keys.rates for seed in keys.seeds]
    return {cell: _job(study, cell) for cell in cells}


def outcome(study: StudyConfig, jobs: Mapping[Cell, Job]) -> Outcome:
    """Of runs that are finished.

    Raises:
        UserError: where some batch never reached the target: the message gives the best of each.
    """
    keys = study.tune.steps
    curves = {cell: _curve(job) for cell, job in jobs.items()}
    best = {
        batch: min(_lowest(curves, batch, rate, keys.seeds) for rate in keys.rates) for batch in keys.batches
    }
    target = keys.target if keys.target is not None else math.ceil(1000 * max(best.values())) / 1000
    missed = {batch: loss for batch, loss in best.items() if loss > target}
    if missed:
        lowest = ", ".join(f"batch {batch}: {loss:.4f}" for batch, loss in missed.items())
        raise UserError(
            f"the target of {target:g} nats was never reached by all seeds; the lowest losses are {lowest}. "
            f"Train longer (length, tune.steps.floor), or take a target of {max(best.values()):.4f} or more"
        )
    points, noise, rates = [], [], {}
    for batch in keys.batches:
        steps, rates[batch] = min(
            (_total(curves, batch, rate, keys.seeds, target), rate)
            for rate in keys.rates
            if _lowest(curves, batch, rate, keys.seeds) <= target
        )
        for seed in keys.seeds:
            cell = Cell(batch, rates[batch], seed)
            reached = curves[cell].steps_to(target)
            assert reached is not None and steps
            points.append((float(batch), reached))
            scale = noise_scale(jobs[cell], reached)
            noise += [(float(batch), scale)] if scale is not None else []
    return Outcome(target, points, rates, noise)


def noise_scale(job: Job, steps: float) -> float | None:
    """The ratio of averages over the first ``steps`` steps of a run; None: undefined."""
    lines = [
        line
        for line in job.folder.metric_lines()
        if "batch/gradient_square" in line and line["step"] <= steps
    ]
    square = sum(line["batch/gradient_square"] for line in lines)
    return sum(line["batch/gradient_variance"] for line in lines) / square if square > 0 else None


def _job(study: StudyConfig, cell: Cell) -> Job:
    keys, base = study.tune.steps, study.run()
    lengths = Lengths(base)
    samples = lengths.in_samples(base.length) + keys.floor * cell.batch
    warmup = lengths.in_samples(base.schedule.warmup)
    rate = base.optimizer.lr * cell.rate * (cell.batch / base.batch.size) ** _POWER[keys.rule]
    steps = -(-samples // cell.batch)
    config = base.model_copy(
        update={
            "folder": study.place / "steps" / f"b{cell.batch}-r{cell.rate:g}-s{cell.seed}",
            "seed": cell.seed,
            "length": Quantity(float(steps), "steps"),
            "batch": base.batch.model_copy(
                update={"size": cell.batch, "micro": _half(cell.batch), "stages": [], "measured": []}
            ),
            "optimizer": base.optimizer.model_copy(update={"lr": rate}),
            "schedule": base.schedule.model_copy(
                update={"kind": "constant", "warmup": Quantity(float(warmup), "samples")}
            ),
            "validation": base.validation.model_copy(
                update={"every": Quantity(float(max(1, steps // keys.heldout)), "steps")}
            ),
            "checkpoint": base.checkpoint.model_copy(update={"keep": 1}),
        }
    )
    return Job(config, steps)


def _half(batch: int) -> int | None:
    return batch // 2 if batch % 2 == 0 else None


def _curve(job: Job) -> Curve:
    found = [
        (line["step"], line["heldout/nats_per_token"])
        for line in job.folder.metric_lines()
        if "heldout/nats_per_token" in line
    ]
    return Curve([int(step) for step, _ in found], [loss for _, loss in found])


def _lowest(curves: Mapping[Cell, Curve], batch: int, rate: float, seeds: Sequence[int]) -> float:
    """The loss that every seed reached; infinite where one is no number."""
    lowest = max(min(curves[Cell(batch, rate, seed)].losses, default=math.inf) for seed in seeds)
    return lowest if math.isfinite(lowest) else math.inf


def _total(
    curves: Mapping[Cell, Curve], batch: int, rate: float, seeds: Sequence[int], target: float
) -> float:
    return sum(curves[Cell(batch, rate, seed)].steps_to(target) or math.inf for seed in seeds)
