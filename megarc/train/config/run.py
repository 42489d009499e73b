"""The tree of a run's keys: each part's stand in a file, or a room, of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from megarc.config import Config, Duration, PathKey, key
from megarc.data import DataConfig, ObjectiveConfig, WindowConfig
from megarc.model.config import ExecutionConfig, ModelConfig
from megarc.quantity import Quantity
from megarc.train.config import combinations
from megarc.train.config.average import AverageConfig
from megarc.train.config.batch import BatchConfig
from megarc.train.config.checkpoint import CheckpointConfig
from megarc.train.config.health import HealthConfig
from megarc.train.config.logging import LoggingConfig
from megarc.train.config.optimizer import OptimizerConfig
from megarc.train.config.parallel import ParallelConfig
from megarc.train.config.profile import ProfileConfig
from megarc.train.config.schedule import ScheduleConfig
from megarc.train.config.start import StartConfig
from megarc.train.config.validation import ValidationConfig


class RunConfig(Config):
    """A run: everything that `launch/pretrain.py` reads."""

    folder: PathKey = key(
        Path("runs/run"),
        "the run's folder; the same command on the same folder resumes the run",
        circumstance=True,
    )
    length: Duration = key(
        Quantity(300, "steps"), "length of the run: tokens (predicted), samples or steps", circumstance=True
    )
    until: Duration | None = key(
        None,
        "stop there; the learning-rate schedule still ends at length. null: run to length",
        circumstance=True,
    )
    start_from: PathKey | None = key(
        None,
        "a run folder or checkpoint that a new run begins from, with what start_with says",
        circumstance=True,
    )
    start_with: StartConfig = key(StartConfig, "what start_from takes along")
    seed: int = key(0, "seed of initial values and of the order of the data", ge=0)
    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto: CUDA where there is one", circumstance=True)
    precision: Literal["fp32", "bf16"] = key(
        "fp32",
        "type of weights and activations; master weights and moments are always fp32",
        circumstance=True,
    )
    window: WindowConfig = key(WindowConfig, "the window [R | C]")
    model: ModelConfig = key(ModelConfig, "the language model")
    objective: ObjectiveConfig = key(ObjectiveConfig, "what is predicted beside C")
    data: DataConfig = key(DataConfig, "what is read")
    batch: BatchConfig = key(BatchConfig, "samples of a step")
    optimizer: OptimizerConfig = key(OptimizerConfig, "AdamW and the loss's extras")
    average: AverageConfig = key(
        AverageConfig, "weights averaged along the run, a second model in its checkpoints"
    )
    schedule: ScheduleConfig = key(ScheduleConfig, "learning rate over the run")
    execution: ExecutionConfig = key(
        ExecutionConfig, "how the model is computed: engine, compilation, recomputation"
    )
    parallel: ParallelConfig = key(ParallelConfig, "how the model is divided over ranks")
    checkpoint: CheckpointConfig = key(CheckpointConfig, "when the state is saved")
    health: HealthConfig = key(HealthConfig, "bad numbers, hangs, damaged memory, slow ranks")
    validation: ValidationConfig = key(ValidationConfig, "held-out loss")
    logging: LoggingConfig = key(LoggingConfig, "what the run reports")
    profile: ProfileConfig | None = key(
        None, "steps that are profiled into the run folder; null: none", circumstance=True
    )
    deepspeed: dict[str, Any] = key({}, "passed to DeepSpeed unchanged, for experts", circumstance=True)

    def shared_among(self, replicas: int) -> RunConfig:
        """Itself as an engine runs it whose weights so many ranks hold or share.

        One rank has nobody to share with: ZeRO 1 in float32 is stage 0 then, without the copies of gradients and
        weights through flat buffers. Not where offloading or a key of ``deepspeed:`` speaks of these buffers.
        """
        parallel = self.parallel
        plain = self.precision == "fp32" and parallel.pipeline == 1 and parallel.offload == "none"
        if replicas > 1 or parallel.zero != 1 or not plain or "zero_optimization" in self.deepspeed:
            return self
        return self.model_copy(update={"parallel": parallel.model_copy(update={"zero": 0})})

    @model_validator(mode="after")
    def _batch_in_samples(self) -> RunConfig:
        """A batch given in tokens becomes one in samples, here and once."""
        unit = self.batch.unit
        if unit == "samples":
            return self
        if self.window.changes:
            raise ValueError(
                f"batch.unit is '{unit}', and the window changes in the run, so a step has no fixed number of "
                "tokens; use batch.unit=samples"
            )
        window = self.window.build()
        width = window.stride if unit == "predicted tokens" else window.rows
        batch = self.batch.model_copy(
            update={
                "unit": "samples",
                "size": _whole_windows(self.batch.size, width, unit),
                "largest": self.batch.largest and _whole_windows(self.batch.largest, width, unit),
                "stages": [
                    stage.model_copy(update={"size": _whole_windows(stage.size, width, unit)})
                    for stage in self.batch.stages
                ],
                "measured": [
                    point.model_copy(update={"batch": point.batch / width}) for point in self.batch.measured
                ],
            }
        )
        return self.model_copy(update={"batch": batch})

    @model_validator(mode="after")
    def _batch_rules_fit(self) -> RunConfig:
        combinations.check_batch_rules(self.batch, self.schedule, self.optimizer, self.length, self.window)
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> RunConfig:
        combinations.check(self.model, self.window, self.data, self.parallel, self.precision)
        combinations.check_parametrization(self.model, self.optimizer)
        combinations.check_mixers(self.model, self.execution)
        combinations.check_experts(self.model, self.execution, self.parallel, self.optimizer)
        combinations.check_context(self.parallel, self.model, self.execution, self.window)
        combinations.check_widths(self.model, self.objective)
        combinations.check_windows(self.window, self.data, self.batch, self.objective)
        return self


def _whole_windows(tokens: int, width: int, unit: str) -> int:
    if tokens % width:
        near = " or ".join(str(width * count) for count in (tokens // width, tokens // width + 1) if count)
        raise ValueError(
            f"batch size {tokens} {unit} is not a whole number of windows of {width}; use {near}"
        )
    return tokens // width
