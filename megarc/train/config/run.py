"""The keys of a run, and the tree that puts all rooms' keys together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import model_validator

from megarc.config import Config, Duration, key
from megarc.data import DataConfig, WindowConfig
from megarc.model import ExecutionConfig, ModelConfig
from megarc.quantity import Quantity
from megarc.train.config.batch import BatchConfig
from megarc.train.config.safety import CheckpointConfig, HealthConfig
from megarc.train.config.start import StartConfig


class OptimizerConfig(Config):
    """AdamW (Loshchilov and Hutter 2019, 1711.05101) on float32 masters."""

    library: Literal["torch", "apex", "deepspeed"] = key(
        "torch",
        "whose AdamW: torch's fused one; apex's where installed; DeepSpeed's, compiled at first use (minutes)",
        circumstance=True,
    )
    lr: float = key(1e-3, "peak learning rate", gt=0)
    beta1: float = key(0.9, "decay of the gradient's mean", ge=0, lt=1)
    beta2: float = key(0.95, "decay of the gradient's mean square", ge=0, lt=1)
    epsilon: float = key(1e-8, "added to the root of the mean square", gt=0)
    weight_decay: float = key(0.1, "on matrices and embeddings, not on norms' gains", ge=0)
    clip: float = key(1.0, "largest gradient norm; 0: no clipping", ge=0)
    z_loss: float = key(0.0, "weight of log_z^2 beside each row's loss (PaLM: 1e-4)", ge=0)


class ScheduleConfig(Config):
    """Learning rate over a run: linear warm-up, then a shape."""

    kind: Literal["cosine", "wsd", "constant"] = key(
        "cosine", "cosine to the end; wsd: stable, then a linear decay; constant"
    )
    warmup: Duration = key(Quantity(0.02, "run"), "linear from 0; '100 steps', '0.02 of run', '1M tokens'")
    decay: Duration = key(Quantity(0.2, "run"), "wsd only: length of the decay at the end")
    final: float = key(0.1, "share of the peak that is left at the end", ge=0, le=1)


class ParallelConfig(Config):
    """Who holds what. Ranks that tensor and pipeline leave are data parallel."""

    tensor: int = key(1, "ranks that share each layer out", circumstance=True, ge=1)
    pipeline: int = key(1, "stages, one after the other, that share the layers out", circumstance=True, ge=1)
    sequence: bool = key(
        False, "between split layers, each tensor rank keeps a part of the rows", circumstance=True
    )
    zero: Literal[0, 1, 2, 3] = key(
        1, "ZeRO stage: what data ranks share out. 0 nothing, 1 optimizer, 2 + gradients, 3 + weights",
        circumstance=True,
    )  # fmt: skip
    offload: Literal["none", "optimizer", "all"] = key(
        "none",
        "what lives in the host's memory: the optimizer (with zero 1 to 3), or the weights too (zero 3)",
        circumstance=True,
    )
    node: int | None = key(
        None,
        "zero 3: ranks of a node, that keep a second copy of the weights among them (ZeRO++'s hpZ); null: none",
        circumstance=True,
        ge=2,
    )
    data: int | None = key(
        None, "data parallel ranks; another number is refused. null: what tensor and pipeline leave",
        circumstance=True, ge=1,
    )  # fmt: skip
    world: int | None = key(
        None, "ranks that this run expects; another number is refused. null: any", circumstance=True, ge=1
    )

    @property
    def expected(self) -> int | None:
        """Ranks that must come, where the keys say so."""
        if self.world is None and self.data is not None:
            return self.tensor * self.pipeline * self.data
        return self.world


class ValidationConfig(Config):
    """Held-out loss during training, on data.valid."""

    every: Duration = key(
        Quantity(0.1, "run"), "between held-out losses; one more at the end", circumstance=True
    )
    windows: int = key(
        256,
        "windows that are scored each time: of each source of data.valid as many, from its first on",
        circumstance=True,
        ge=1,
    )


class LoggingConfig(Config):
    """What a run tells while it goes on."""

    every: int = key(10, "steps between lines of metrics", circumstance=True, ge=1)
    tensorboard: bool = key(True, "write tensorboard/ too", circumstance=True)
    peak_flops: float | None = key(
        None, "FLOP/s of one device, for MFU; null: known GPUs by name, a CPU by a short matrix product",
        circumstance=True, gt=0,
    )  # fmt: skip


class RunConfig(Config):
    """A run: everything that `launch/pretrain.py` reads."""

    folder: Path = key(
        Path("runs/run"), "where the run lives; the same command goes on there", circumstance=True
    )
    length: Duration = key(
        Quantity(300, "steps"), "of the run: tokens (predicted), samples or steps", circumstance=True
    )
    until: Duration | None = key(
        None, "stop there, though the learning rate goes on to length; null: run to length", circumstance=True
    )
    start_from: Path | None = key(
        None,
        "a run folder or checkpoint that a new run begins from, with what start_with says",
        circumstance=True,
    )
    start_with: StartConfig = key(StartConfig, "what start_from takes along")
    seed: int = key(0, "of initial values and of the data's order", ge=0)
    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto: CUDA where there is one", circumstance=True)
    precision: Literal["fp32", "bf16"] = key(
        "fp32", "of weights and activations; masters and moments are always fp32", circumstance=True
    )
    window: WindowConfig = key(WindowConfig, "the window [R | C]")
    model: ModelConfig = key(ModelConfig, "the language model")
    data: DataConfig = key(DataConfig, "what is read")
    batch: BatchConfig = key(BatchConfig, "samples of a step")
    optimizer: OptimizerConfig = key(OptimizerConfig, "AdamW and the loss's extras")
    schedule: ScheduleConfig = key(ScheduleConfig, "learning rate over the run")
    execution: ExecutionConfig = key(ExecutionConfig, "how the same numbers are computed")
    parallel: ParallelConfig = key(ParallelConfig, "who holds what")
    checkpoint: CheckpointConfig = key(CheckpointConfig, "when the state is saved")
    health: HealthConfig = key(HealthConfig, "bad numbers, hangs, damaged memory, slow ranks")
    validation: ValidationConfig = key(ValidationConfig, "held-out loss")
    logging: LoggingConfig = key(LoggingConfig, "what the run tells")
    deepspeed: dict[str, Any] = key({}, "passed to DeepSpeed as it is, for experts", circumstance=True)

    @model_validator(mode="after")
    def _batch_in_whole_windows(self) -> RunConfig:
        """A batch given in tokens becomes one in samples, here and once."""
        unit = self.batch.unit
        if unit == "samples":
            return self
        window = self.window.build()
        width = window.stride if unit == "predicted tokens" else window.rows
        batch = self.batch.model_copy(
            update={
                "unit": "samples",
                "size": _whole_windows(self.batch.size, width, unit),
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
    def _positions_reach(self) -> RunConfig:
        positions, rows = self.model.learned_positions, self.window.recent + self.window.causal
        if positions is not None and positions < rows:
            raise ValueError(f"model.learned_positions is {positions}, fewer than the window's {rows} rows")
        return self

    @model_validator(mode="after")
    def _pipeline_fits(self) -> RunConfig:
        stages, zero = self.parallel.pipeline, self.parallel.zero
        if stages > 1 and zero != 1:
            raise ValueError(
                f"parallel.pipeline {stages} with parallel.zero {zero} is not supported: the engine's "
                "pipeline refuses 2 and 3, and at 0 it clips by a wrong norm; use parallel.zero=1"
            )
        if stages > self.model.layers:
            raise ValueError(
                f"parallel.pipeline {stages} is more than model.layers {self.model.layers}: a stage needs "
                f"a block; use at most {self.model.layers}"
            )
        return self

    @model_validator(mode="after")
    def _world_fits(self) -> RunConfig:
        parallel = self.parallel
        world, data = parallel.world, parallel.data
        if world is not None and data is not None and world != parallel.tensor * parallel.pipeline * data:
            raise ValueError(
                f"parallel.world {world} is not parallel.tensor {parallel.tensor} x parallel.pipeline "
                f"{parallel.pipeline} x parallel.data {data}; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _zero_fits(self) -> RunConfig:
        parallel = self.parallel
        least = {"none": 0, "optimizer": 1, "all": 3}[parallel.offload]
        if parallel.zero < least:
            raise ValueError(f"parallel.offload {parallel.offload} needs parallel.zero={least} or more")
        if parallel.offload != "none" and parallel.pipeline > 1:
            raise ValueError(
                "parallel.offload with a pipeline is not supported: it was never seen right; use none"
            )
        if parallel.node is not None and parallel.zero != 3:
            raise ValueError(
                f"parallel.node is ZeRO++ on stage 3, and parallel.zero is {parallel.zero}; use 3"
            )
        return self

    @model_validator(mode="after")
    def _precision_fits(self) -> RunConfig:
        if self.precision == "bf16" and self.parallel.zero == 0:
            raise ValueError(
                "precision bf16 with parallel.zero 0 is not supported: the engine takes a stray Adam step "
                "at its start; use parallel.zero=1 (the table in docs/run.md says what works)"
            )
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


def _whole_windows(tokens: int, width: int, unit: str) -> int:
    if tokens % width:
        near = " or ".join(str(width * count) for count in (tokens // width, tokens // width + 1) if count)
        raise ValueError(f"batch size {tokens} {unit} is no whole number of windows of {width}; use {near}")
    return tokens // width
