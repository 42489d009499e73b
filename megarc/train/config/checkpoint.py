"""The keys of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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
        "when a checkpoint cannot be written: the run ends, or continues with the last complete one and tries "
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
