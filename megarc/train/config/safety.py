"""The keys of what keeps a run safe: its checkpoints, and the watch on its health."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from megarc.config import Config, Duration, key
from megarc.quantity import Quantity


class CheckpointConfig(Config):
    """When the state is saved, and what is kept."""

    every: Duration = key(
        Quantity(0.25, "run"), "between checkpoints; one more at the end", circumstance=True
    )
    keep: int = key(2, "newest checkpoints that stay; older ones are removed", circumstance=True, ge=1)
    keep_every: Duration | None = key(
        None,
        "the first checkpoint at or beyond each multiple of this stays for good; null: none does",
        circumstance=True,
    )
    background: bool = key(
        True, "a step waits for a copy in memory only, a thread writes it; false: it waits for the disk",
        circumstance=True,
    )  # fmt: skip
    on_error: Literal["stop", "continue"] = key(
        "stop",
        "when a checkpoint cannot be written: the run ends, or goes on with the last whole one and tries "
        "again when the next is due",
        circumstance=True,
    )
    local: Path | None = key(
        None,
        "a folder on each host's own disk for more frequent checkpoints, gone with the host; $NAMES of the "
        "environment are filled in; null: none",
        circumstance=True,
    )
    local_every: Duration = key(
        Quantity(0.05, "run"), "between checkpoints on the hosts' own disks", circumstance=True
    )


class HealthConfig(Config):
    """What is done about bad numbers, hangs, damaged memory and slow ranks."""

    spike: float | None = key(
        None,
        "a loss above the running mean by this many standard deviations is bad, as nan and inf always are; "
        "null: only those",
        gt=0,
    )
    bad_steps: int = key(3, "bad steps in a row that are left out, before `then`", circumstance=True, ge=1)
    then: Literal["back", "stop"] = key(
        "back",
        "go back to the last checkpoint before them and leave their samples out for good, or stop with a report",
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
        0.0, "relative difference that a replay may show, where kernels add up in any order",
        circumstance=True, ge=0,
    )  # fmt: skip
    slow: float = key(
        1.5, "a rank this many times slower than the median is named in the log", circumstance=True, gt=1
    )
    dry_step: bool = key(
        True, "before the first step, one of full size without an update, to find out whether memory is enough",
        circumstance=True,
    )  # fmt: skip

    @model_validator(mode="after")
    def _is_possible(self) -> HealthConfig:
        if self.then == "back" and self.backs == 0:
            raise ValueError("health.then is back and health.backs is 0; use then=stop")
        return self
