"""The keys of a run's batch: its size, and where in the run it changes."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from megarc.config import Config, Duration, key


class StageConfig(Config):
    """A part of the run with steps of its own size."""

    at: Duration = key(..., "where it begins: '1M tokens' (predicted), '2M processed tokens', '5k samples'")
    size: int = key(..., "of a step from there on, in batch.unit", ge=1)


class MeasuredConfig(Config):
    """A critical batch that was measured."""

    at: Duration = key(..., "where in the run: '1M tokens', '2M processed tokens', '5k samples'")
    batch: float = key(..., "the critical batch there, in batch.unit", gt=0)


class BatchConfig(Config):
    """Samples (windows) of one optimizer step, over all ranks and micro-batches."""

    size: int = key(16, "samples of a step, over all ranks", ge=1)
    micro: int | None = key(
        None, "samples a rank takes at once; null: all of its share", circumstance=True, ge=1
    )
    unit: Literal["samples", "predicted tokens", "processed tokens"] = key(
        "samples", "of size here and in stages: samples, or the tokens that their windows predict or process"
    )
    stages: list[StageConfig] = key([], "other sizes later in the run, each from its 'at' on")
    measured: list[MeasuredConfig] = key(
        [], "critical batches: the batch doubles wherever theirs has grown to twice it; no stages then"
    )
    rate: Literal["sqrt", "linear", "none", "seesaw"] = key(
        "sqrt",
        "what a stage of k times the size does to the learning rate: times sqrt(k), k, or nothing; "
        "seesaw: the batch doubles wherever the schedule halves the rate, which falls by sqrt(2) there; no stages then",
    )
    largest: int | None = key(
        None,
        "rate seesaw only: no step is larger, in batch.unit, for instance the critical batch; null: any",
        ge=1,
    )
    beta2: Literal["fixed", "tokens"] = key(
        "fixed",
        "of a stage of k times the size: optimizer.beta2 as it is, or to the power k, the same over tokens",
    )
    decay: Literal["fixed", "tokens"] = key(
        "fixed",
        "of such a stage: optimizer.weight_decay as it is, or such that weights decay as much over as many tokens",
    )
    noise_every: int = key(
        10,
        "steps between measurements of batch/noise_scale; 0: none, and none with objective.widths=all",
        circumstance=True,
        ge=0,
    )

    @property
    def power(self) -> float:
        """The learning rate of k times the batch is k to this power times as high."""
        return {"sqrt": 0.5, "seesaw": 0.5, "linear": 1.0, "none": 0.0}[self.rate]

    @property
    def micro_batch(self) -> int:
        """Samples that a rank takes at once, which must be known by now."""
        assert self.micro is not None, "resolve() fills it in"
        return self.micro

    @model_validator(mode="after")
    def _stages_are_amounts(self) -> BatchConfig:
        for at in [*(stage.at for stage in self.stages), *(point.at for point in self.measured)]:
            if at.unit in ("steps", "run"):
                raise ValueError(f"a stage of the batch begins at tokens or samples, not at '{at}'")
        if self.stages and self.measured:
            raise ValueError("stages and measured both say when the batch grows; give one of them")
        if self.rate == "seesaw" and (self.stages or self.measured):
            raise ValueError(
                "batch.rate seesaw says by itself when the batch grows; leave stages and measured out"
            )
        if self.rate != "seesaw" and self.largest is not None:
            raise ValueError(f"batch.largest is for batch.rate seesaw, and it is {self.rate}; leave it out")
        return self
