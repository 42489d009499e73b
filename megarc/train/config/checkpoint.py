"""The keys of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from megarc.config import Config, Duration, key
from megarc.object_store import holds_credentials, is_stored, names_this_machine
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
    peers: int = key(
        0,
        "other hosts to whose disks each host's local checkpoint is copied in the background; a lost host is then "
        "replaced without going back to the shared checkpoint. 0: none",
        circumstance=True,
        ge=0,
    )

    store: str | None = key(
        None,
        "a URL of an object store (s3://bucket/runs/NAME) to which the newest checkpoint, the metrics and what "
        "resuming needs are copied in the background; the same command on a fresh host resumes there. null: none",
        circumstance=True,
    )
    store_on_error: Literal["stop", "continue"] = key(
        "continue",
        "when a copy to the store fails in spite of repeated requests: the run continues and tries again later, or "
        "ends. The checkpoint on the disk stays either way",
        circumstance=True,
    )

    @field_validator("store")
    @classmethod
    def _is_a_store(cls, given: str | None) -> str | None:
        if given is not None and holds_credentials(given):
            raise ValueError(
                "it holds a name before an '@'; credentials belong in the environment, not in a URL"
            )
        if given is not None and not is_stored(given):
            raise ValueError(
                "it is not the URL of an object store, such as s3://bucket/runs/NAME; folder=... names the "
                "folder on the disk"
            )
        if given is not None and names_this_machine(given):
            raise ValueError("it names a folder of this machine, not of a store; give s3://bucket/runs/NAME")
        return given

    @model_validator(mode="after")
    def _peers_have_what_to_copy(self) -> CheckpointConfig:
        if self.peers and self.local is None:
            raise ValueError(
                f"checkpoint.peers {self.peers} copies the checkpoints of each host's own disk, and checkpoint.local "
                "is not given; name a folder there (checkpoint.local='$TMPDIR/megarc'), or use checkpoint.peers=0"
            )
        return self
