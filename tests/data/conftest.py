"""Corpora in memory, for tests of what is made of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Memory:
    """A corpus whose token i is i: a window shows where it lies."""

    tokens: np.ndarray[Any, Any]
    begins: np.ndarray[Any, Any]
    digest: str

    @property
    def document_count(self) -> int:
        return len(self.begins)

    def document_starts(self, numbers: Any) -> Any:
        return self.begins[numbers]


@pytest.fixture
def memory() -> Callable[..., Memory]:
    def make(tokens: int, documents: tuple[int, ...] = (0,), digest: str = "d") -> Memory:
        return Memory(np.arange(tokens, dtype=np.int32), np.asarray(documents, dtype=np.int64), digest)

    return make


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Path]:
    """Writes token i = i in documents of the given lengths, as Megatron's .bin and .idx; returns the prefix.

    By hand, so that reading is not tested against our own writer.
    """

    def write(name: str, lengths: Sequence[int], first: int = 0) -> Path:
        prefix = tmp_path / name
        tokens = np.arange(first, first + sum(lengths), dtype="<i4")
        begins = 4 * (np.cumsum(lengths) - lengths)
        head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, len(lengths), len(lengths) + 1)
        columns = (np.asarray(lengths, "<i4"), begins.astype("<i8"), np.arange(len(lengths) + 1, dtype="<i8"))
        prefix.with_suffix(".idx").write_bytes(head + b"".join(column.tobytes() for column in columns))
        prefix.with_suffix(".bin").write_bytes(tokens.tobytes())
        return prefix

    return write
