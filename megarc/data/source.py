"""A source: anything that gives samples by number.

A strided corpus is one; tasks, roll-outs and transcripts are others. A source
is made for one window: n rows, n + 1 tokens, loss on the last s rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from megarc.window import Window

Tokens: TypeAlias = npt.NDArray[Any]  # of any whole-number type
Indices: TypeAlias = npt.NDArray[np.int64]
Weights: TypeAlias = npt.NDArray[np.float32]
Segments: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One window's worth, n rows of which the last s bear loss.

    Attributes:
        tokens: [n + 1], whole numbers of any width.
        weights: [s] of the loss rows, or [n] of all rows, 0 where a row bears no loss; None: all s rows count 1. Rows
            inside an R that ``recent_end`` gives bear none, since they see their targets.
        documents: [n], which document a row belongs to, where attention stays inside one; None: no matter.
        recent: rows of R, where fewer than the window's; None: the window's.
        positions: [n], where each row stands, for the model's positions; None: its number, 0 .. n-1.
        recent_end: [n], the row behind R of each row's document, where documents have an R of their own; None:
            ``recent`` says it.
    """

    tokens: Tokens
    weights: Weights | None = None
    documents: Segments | None = None
    recent: int | None = None
    positions: Segments | None = None
    recent_end: Segments | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """B samples: tokens [B, n + 1], weights [B, s] or [B, n], recent [B], the others [B, n]."""

    tokens: Tokens
    weights: Weights | None = None
    documents: Segments | None = None
    recent: Segments | None = None
    positions: Segments | None = None
    recent_end: Segments | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a source knows of itself; None where it does not."""

    name: str
    tokens: int | None = None
    documents: int | None = None
    bytes_per_token: float | None = None
    vocabulary: int | None = None
    tokenizer_digest: str | None = None
    reserved: Mapping[str, int] | None = None  # ids of the tokens that text never turns into
    note: str = ""  # what a reader of the run's beginning should know of it


class Source(Protocol):
    """Gives sample k of ``len``, always the same one.

    With every sample it gives weights, or with none; the same for documents and positions.
    """

    @property
    def digest(self) -> str:
        """What it holds: another digest, other samples."""

    @property
    def facts(self) -> Facts:
        """For people, and for checks across sources."""

    def __len__(self) -> int: ...

    def read(self, k: int) -> Sample: ...


@runtime_checkable
class BulkSource(Protocol):
    """A source that reads many samples faster than one by one."""

    def read_many(self, k: Indices) -> Samples:
        """Samples k [B]."""


@runtime_checkable
class AnnouncedSource(Protocol):
    """A source that may read from afar, and can begin to before it has to."""

    @property
    def far(self) -> bool:
        """Whether it does."""

    def announce(self, k: Indices) -> None:
        """Samples k [B] will be read in some steps. It does not wait, and what fails is raised when they are read."""


@runtime_checkable
class LocatedSource(Protocol):
    """A source that can say where a sample comes from."""

    def located(self, k: int) -> str:
        """For people: the documents that sample k begins with, and where they lie."""


Turns: TypeAlias = Callable[[Indices], Indices]
"""Which of a source's samples come at these turns, counted over all epochs."""


@runtime_checkable
class OrderedSource(Protocol):
    """A source that says in which order its samples come, for not all of them are there yet."""

    def turns(self, key: int) -> Turns:
        """A random order for each ``key``: in every epoch each sample comes once."""


def read_many(source: Source, k: Indices, window: Window) -> Samples:
    """Samples ``k`` [B] of any source made for ``window``, at once where it can."""
    if isinstance(source, BulkSource):
        return source.read_many(k)
    samples = [source.read(int(number)) for number in k]
    recent = [window.recent if sample.recent is None else sample.recent for sample in samples]
    own = any(sample.recent is not None for sample in samples)
    return Samples(
        tokens=np.stack([sample.tokens for sample in samples]),
        weights=_stacked([sample.weights for sample in samples]),
        documents=_stacked([sample.documents for sample in samples]),
        recent=np.asarray(recent, dtype=np.int32) if own else None,
        positions=_stacked([sample.positions for sample in samples]),
        recent_end=_stacked([sample.recent_end for sample in samples]),
    )


def _stacked(rows: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    present = [row for row in rows if row is not None]
    if len(present) not in (0, len(rows)):
        raise ValueError(
            "a source gave weights, documents or positions with some samples and not with others"
        )
    return np.stack(present) if present else None
