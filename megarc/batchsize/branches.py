"""Branched training: how large a batch may be at one place of a run (Merrill et al. 2025, 2505.23971).

From a checkpoint, branches at multiples k of the batch, learning rate times sqrt(k), over the same samples.
The critical multiple is the largest whose smoothed loss lies within a tolerance of every smaller one's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from megarc.batchsize.config import BranchConfig, StudyConfig
from megarc.errors import UserError
from megarc.jobs import Job
from megarc.quantity import Quantity
from megarc.train import Checkpoint, Lengths, RunConfig, Timeline, find_checkpoint, peak, run_config

_SMOOTHING = 0.5  # of the exponential average over a branch's losses, as theirs


@dataclass(frozen=True, slots=True)
class Decision:
    """Which multiple is critical.

    Attributes:
        losses: multiple -> smoothed loss at the end of its branch, nats a token.
        multiple: the critical one.
        bounded: whether a larger multiple was tried and is worse; else the critical one may be larger.
        smaller: whether a smaller one was tried; else the critical one may be smaller.
        size: samples of the critical batch.
        samples: before the branches.
    """

    losses: dict[float, float]
    multiple: float
    bounded: bool
    smaller: bool
    size: int
    samples: int
    tolerance: float


def trunk_job(study: StudyConfig) -> Job:
    """The run itself as far as the place where branches leave it. The run may go on from there."""
    config = study.run().model_copy(
        update={"folder": study.place / "trunk", "until": study.tune.branches.trunk}
    )
    return Job(config, Timeline.of(config).last)


def branch_jobs(checkpoint: Checkpoint, study: StudyConfig) -> dict[float, Job]:
    """A run for each multiple, from a checkpoint, in the study's folder. Its keys are those of the checkpoint's
    run, but for the micro-batch: a checkpoint knows only what it was on the ranks of then.

    Every branch takes the same samples, a whole number of steps and of ``keys.lines`` each.

    Raises:
        UserError: where the checkpoint has no optimizer state, or a batch or length does not come out even.
    """
    _check_moments(checkpoint)
    keys = study.tune.branches
    trunk, standing = run_config(checkpoint), checkpoint.standing
    size = Lengths(trunk, standing.step, standing.samples).batches.size(standing.step)
    sizes = {multiple: multiple * size for multiple in keys.multiples}
    for multiple, wanted in sizes.items():
        if wanted % 1:
            raise UserError(f"multiple {multiple:g} of the batch of {size} samples is {wanted:g} samples")
    common = math.lcm(*(int(wanted) for wanted in sizes.values()))
    line = common * max(1, round(Lengths(trunk).in_samples(keys.length) / common / keys.lines))
    end = standing.samples + line * keys.lines
    return {
        multiple: _branch(trunk, checkpoint, study, multiple, int(wanted), end)
        for multiple, wanted in sizes.items()
    }


def decide(jobs: Mapping[float, Job], checkpoint: Checkpoint, keys: BranchConfig) -> Decision:
    """The rule, on branches that are finished."""
    losses = {multiple: smoothed(curve(job, keys.lines)) for multiple, job in sorted(jobs.items())}
    for multiple, loss in losses.items():
        if not math.isfinite(loss):
            raise UserError(
                f"the branch at {multiple:g} times the batch diverged; leave it out, or lower the rate"
            )
    critical = critical_multiple(losses, keys.tolerance)
    return Decision(
        losses=losses,
        multiple=critical,
        bounded=critical < max(losses),
        smaller=critical > min(losses),
        size=jobs[critical].config.batch.size,
        samples=checkpoint.standing.samples,
        tolerance=keys.tolerance,
    )


def critical_multiple(losses: Mapping[float, float], tolerance: float) -> float:
    """The largest multiple whose loss lies within ``tolerance`` of every smaller one's."""
    ordered = sorted(losses)
    return max(
        multiple
        for place, multiple in enumerate(ordered)
        if all(losses[multiple] <= losses[smaller] + tolerance for smaller in ordered[:place])
    )


def smoothed(losses: list[float]) -> float:
    """The exponential average of a curve, at its end."""
    average = losses[0]
    for loss in losses[1:]:
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
    return average


def curve(job: Job, lines: int) -> list[float]:
    """A finished branch's losses, the mean over each of ``lines`` equal parts of its samples.

    The parts are the same samples in every branch, so that branches are compared in pairs.
    """
    entries = job.folder.metric_lines()
    losses = [entry["train/nats_per_token"] for entry in entries if "train/nats_per_token" in entry]
    steps = job.steps - job.first
    if len(losses) != steps:
        raise UserError(
            f"{job.folder.metrics} has {len(losses)} losses of {steps} steps; remove {job.config.folder}"
        )
    each = steps // lines
    return [sum(losses[at : at + each]) / each for at in range(0, steps, each)]


def find_trunk(path: Path) -> Checkpoint:
    """The checkpoint that ``path`` names.

    Raises:
        UserError: where it is none, or a model without the state of a run.
    """
    if (path / "model.safetensors").exists():
        raise UserError(
            f"{path} is an exported model without optimizer state; branches need a checkpoint of a run "
            "(a run folder, or its checkpoints/step-...)"
        )
    return find_checkpoint(path)


def _branch(
    trunk: RunConfig, checkpoint: Checkpoint, study: StudyConfig, multiple: float, size: int, end: int
) -> Job:
    standing = checkpoint.standing
    batch = trunk.batch.model_copy(
        update={
            "size": size,
            "micro": study.batch.micro,
            "stages": [],
            "measured": [],
            "rate": "sqrt",
            "largest": None,
        }
    )
    # Of the trunk's steps here, which may be larger than its first ones; then by the branch's own size.
    rate = peak(trunk, round(size / multiple)) * math.sqrt(multiple)
    # The schedule of the learning rate is one of samples, so it goes on as the trunk's would.
    total = max(Lengths(trunk).in_samples(trunk.length), end)
    decay = _in_samples(trunk, trunk.schedule.decay)
    if trunk.schedule.kind == "wsd" and study.tune.branches.decay:
        # At a rate that stays high, losses are those of the noise; what was learned shows after a decay.
        total, decay = end, Quantity(round(study.tune.branches.decay * (end - standing.samples)), "samples")
    config = trunk.model_copy(
        update={
            "folder": study.place / f"times-{multiple:g}",
            "start_from": checkpoint.folder,
            "batch": batch,
            "optimizer": trunk.optimizer.model_copy(update={"lr": rate}),
            "length": Quantity(float(total), "samples"),
            "until": Quantity(float(end), "samples"),
            "schedule": trunk.schedule.model_copy(
                update={
                    "warmup": _in_samples(trunk, trunk.schedule.warmup),
                    "decay": decay,
                }
            ),
            "logging": trunk.logging.model_copy(update={"every": 1}),
        }
    )
    return Job(config, Timeline.of(config, standing).last, standing.step)


def _in_samples(config: RunConfig, amount: Quantity) -> Quantity:
    return Quantity(float(Lengths(config).in_samples(amount)), "samples")


def _check_moments(checkpoint: Checkpoint) -> None:
    for name in checkpoint.manifest["files"]:
        if name.endswith(".safetensors"):
            try:
                with safe_open(checkpoint.folder / name, framework="pt") as file:
                    parts = {entry.rsplit("/", 1)[-1] for entry in file.keys()}  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                raise UserError(f"{checkpoint.folder / name} cannot be read: {error}") from None
            if parts and "exp_avg" not in parts:  # Muon has no second moment
                raise UserError(
                    f"{checkpoint.folder} has no optimizer state in {name}: a branch would begin with moments "
                    "of 0, and its loss would say nothing of the batch; use a checkpoint that a run saved"
                )
