"""The keys of what a run writes about itself."""

from __future__ import annotations

from typing import Literal

from megarc.config import Config, key


class LoggingConfig(Config):
    """What a run reports while it trains."""

    every: int = key(10, "steps between lines of metrics", circumstance=True, ge=1)
    tensorboard: bool = key(True, "write tensorboard/ too", circumstance=True)
    trackers: list[Literal["csv", "wandb", "mlflow", "trackio"]] = key(
        [], "programs that get the metrics too: metrics.csv, Weights & Biases (offline), MLflow, trackio",
        circumstance=True,
    )  # fmt: skip
    console: Literal["lines", "table", "json"] = key(
        "lines",
        "metrics on the console: sentences, rows of a table, or the lines of metrics.jsonl",
        circumstance=True,
    )
    notify: list[str] = key(
        [],
        "a program and its arguments, started with JSON on standard input when the run has finished, saved, failed or "
        "gone back",
        circumstance=True,
    )
    project: str = key("megarc", "the run's project in a tracker", circumstance=True, min_length=1)
    peak_flops: float | None = key(
        None, "FLOP/s of one device, for MFU; null: known GPUs by name, a CPU by a short matrix product",
        circumstance=True, gt=0,
    )  # fmt: skip
    predicted_step: float | None = key(
        None,
        "seconds of a step as launch/plan.py predicted them: plan/step_ratio says after 20 steps how it came out; "
        "null: nothing was predicted",
        circumstance=True, gt=0,
    )  # fmt: skip
