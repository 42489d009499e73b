"""The keys of the watch on a run's health."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from megarc.config import Config, Duration, key


class HealthConfig(Config):
    """What is done about bad numbers, hangs, damaged memory and slow ranks."""

    spike: float | None = key(
        None,
        "a loss above the running mean by this many standard deviations is bad, as nan and inf always are; "
        "null: only those",
        gt=0,
    )
    bad_steps: int = key(
        3, "bad steps in a row that are skipped before `then` applies", circumstance=True, ge=1
    )
    then: Literal["back", "stop"] = key(
        "back",
        "back: return to the last checkpoint before them and skip their samples for good; stop: end with a report",
        circumstance=True,
    )
    backs: int = key(3, "times that a run goes back before it stops", circumstance=True, ge=0)
    patience: float = key(
        900.0, "seconds that a rank may stay in one phase of a step; longer is a hang, and the job ends",
        circumstance=True, gt=0,
    )  # fmt: skip
    replicas: Duration | None = key(
        None, "between comparisons of the weights that ranks hold alike; null: never", circumstance=True
    )
    replay: Duration | None = key(
        None, "between steps that are computed twice and compared; null: never", circumstance=True
    )
    tolerance: float = key(
        0.0, "relative difference that a replay may show, for kernels that add numbers in varying order",
        circumstance=True, ge=0,
    )  # fmt: skip
    slow: float = key(
        1.5,
        "a rank that is this many times slower than the median is named in the log",
        circumstance=True,
        gt=1,
    )
    dry_step: bool = key(
        True, "before the first step, runs a step of full size without an update, to find out whether memory is enough",
        circumstance=True,
    )  # fmt: skip

    self_check: Literal["auto", "always", "warn", "off"] = key(
        "auto",
        "compares two steps of a tiny model on the run's ranks with one rank without DeepSpeed. auto: once for each "
        "layout, precision and version of the software, with 2 ranks or more; always: at each start; warn: at each "
        "start, and a difference does not end the run; off: never",
        circumstance=True,
    )

    @field_validator("self_check", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        """YAML reads ``off`` as false."""
        return "off" if value is False else value

    @model_validator(mode="after")
    def _is_possible(self) -> HealthConfig:
        if self.then == "back" and self.backs == 0:
            raise ValueError("health.then is back and health.backs is 0; use then=stop")
        return self
