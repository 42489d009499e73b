"""The keys of the local cache of corpora in object stores."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from megarc.config import Config, PathKey, key

_FEWEST_BLOCKS = 16


class StoreCacheConfig(Config):
    """Where blocks of corpora in object stores are kept on this machine."""

    folder: PathKey = key(
        Path("runs/.store"),
        "on a disk of each host, or $TMPDIR/megarc; runs and ranks of a host share it",
        circumstance=True,
    )
    gib: float = key(
        64.0, "GiB that the folder may hold; what was used longest ago is removed", circumstance=True, gt=0
    )
    block_kib: int = key(
        1024,
        "KiB of a request: a window that is in no cached block brings that many along",
        circumstance=True,
        ge=4,
        le=65536,
    )
    ahead: int = key(
        4,
        "steps whose blocks are asked for before the step that is being read; 0: none",
        circumstance=True,
        ge=0,
    )

    @model_validator(mode="after")
    def _some_blocks_fit(self) -> StoreCacheConfig:
        if self.limit < _FEWEST_BLOCKS * self.block:
            raise ValueError(
                f"gib {self.gib:g} holds fewer than {_FEWEST_BLOCKS} blocks of {self.block_kib} KiB; give more gib or "
                "a smaller block_kib"
            )
        return self

    @property
    def limit(self) -> int:
        """Bytes that the folder may hold."""
        return int(self.gib * 2**30)

    @property
    def block(self) -> int:
        """Bytes of a block: a multiple of every token's width."""
        return self.block_kib * 1024
