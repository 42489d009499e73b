"""Keys of a batch study: those of a run, and how it is studied."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from megarc.config import Config, Duration, PathKey, key
from megarc.quantity import Quantity
from megarc.train import RunConfig

Recompute = Literal["none", "selective", "full"]


class MicroConfig(Config):
    """The search for the micro-batch."""

    memory_gib: float | None = key(
        None, "that a rank may use; null: all of a GPU, four fifths of what a CPU's host has free", gt=0
    )
    largest: int | None = key(
        None, "the largest micro-batch that is tried; null: four times a rank's share of the batch", ge=1
    )
    repeats: int = key(3, "timed steps of each size; the fastest is used", ge=1)
    recompute: list[Recompute] = key(["none", "full"], "settings of execution.recompute that are tried")
    knee: float = key(0.03, "the smallest size within this share of the fastest is chosen", ge=0, lt=1)


class BranchConfig(Config):
    """Branched training (Merrill et al. 2025, 2505.23971)."""

    trunk: Duration = key(Quantity(0.2, "run"), "where branches leave the run")
    length: Duration = key(Quantity(0.2, "run"), "of each branch: the same samples for all")
    multiples: list[float] = key([1.0, 2.0, 4.0, 8.0], "of the batch, one branch each")
    tolerance: float = key(0.01, "nats a token by which a larger batch may end above a smaller one", gt=0)
    decay: float = key(
        0.2,
        "with schedule.kind wsd: the share of a branch, at its end, over which its rate decays",
        ge=0,
        lt=1,
    )
    lines: int = key(
        16, "losses that a branch reports, each over the same samples; the last are averaged", ge=2
    )
    at_once: int = key(2, "branches that train at the same time on this machine", ge=1)

    @field_validator("multiples")
    @classmethod
    def _of_use(cls, multiples: list[float]) -> list[float]:
        if len(set(multiples)) < 2 or min(multiples) <= 0:
            raise ValueError("branches need two multiples or more, all above 0")
        return sorted(set(multiples))


class StepsConfig(Config):
    """Steps to a loss at several batches (Zhang et al. 2024, 2410.21676)."""

    batches: list[int] = key([4, 8, 16, 32, 64], "samples of a step")
    seeds: list[int] = key([0, 1, 2], "a run each")
    rates: list[float] = key(
        [1.0], "factors of the peak rate beside rule; of each batch the one with the fewest steps counts"
    )
    rule: Literal["sqrt", "linear", "none"] = key(
        "sqrt", "how the rate follows the batch, from batch.size on"
    )
    floor: int = key(100, "steps that a run has beside the samples of length: what no batch saves", ge=0)
    heldout: int = key(40, "held-out losses that a run reports", ge=4)
    target: float | None = key(
        None, "held-out nats a token to be reached; null: the lowest that some run of every batch reached"
    )
    optimal: float | None = key(
        None, "the batch from which linear scaling is counted; null: the smallest of batches", gt=0
    )
    tolerance: float = key(0.0, "the share by which steps may rise with the batch, for noise", ge=0)
    at_once: int = key(2, "runs at the same time on this machine", ge=1)


class TuneConfig(Config):
    """How the batch is studied."""

    folder: PathKey | None = key(None, "where the study lives; null: the run's folder, with -batch behind it")
    micro: MicroConfig = key(MicroConfig, "the micro-batch that fits and is fastest")
    branches: BranchConfig = key(BranchConfig, "the critical batch by branched training")
    steps: StepsConfig = key(StepsConfig, "the critical batch by steps to a loss")


class StudyConfig(RunConfig):
    """A run, and how its batch is studied: ``tune`` stands beside the run's own keys."""

    tune: TuneConfig = key(TuneConfig, "the study", circumstance=True)

    @property
    def place(self) -> Path:
        """The study's folder."""
        return self.tune.folder or self.folder.with_name(f"{self.folder.name}-batch")

    def run(self) -> RunConfig:
        """The run alone."""
        return RunConfig(**{name: getattr(self, name) for name in RunConfig.model_fields})
