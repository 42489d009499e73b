"""Where and how much of corpora in object stores is kept on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class CacheSettings(Protocol):
    """What a cache must know; the keys ``data.store_cache`` do."""

    @property
    def folder(self) -> Path:
        """On a disk of this host; runs and ranks share it."""

    @property
    def limit(self) -> int:
        """Bytes that the folder may hold."""

    @property
    def block(self) -> int:
        """Bytes of a request, a multiple of every token's width."""


@dataclass(frozen=True, slots=True)
class StoreCache:
    """Settings for those who have no keys: the same as the keys' defaults."""

    folder: Path = Path("runs/.store")
    limit: int = 64 << 30
    block: int = 1 << 20
