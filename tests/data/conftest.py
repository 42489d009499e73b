"""Corpora in memory, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Memory:
    """A corpus whose token i is i: a window shows where it lies."""

    tokens: np.ndarray[Any, Any]
    documents: np.ndarray[Any, Any]
    digest: str


@pytest.fixture
def memory() -> Callable[..., Memory]:
    def make(tokens: int, documents: tuple[int, ...] = (0,), digest: str = "d") -> Memory:
        return Memory(np.arange(tokens, dtype=np.int32), np.asarray(documents, dtype=np.int64), digest)

    return make
