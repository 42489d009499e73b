"""Where documents begin, found without holding it for all of them: a corpus may have 10^10."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from megarc.data.source import Indices, Segments


class Corpus(Protocol):
    """Tokens on disk, document after document."""

    @property
    def tokens(self) -> npt.NDArray[Any]:
        """[tokens], whole numbers, best a memory map."""

    @property
    def document_count(self) -> int: ...

    def document_starts(self, numbers: Indices) -> Indices:
        """The first token of each of the documents ``numbers`` [..]; it never falls as they grow."""

    @property
    def digest(self) -> str:
        """Of the content."""


def begun(corpus: Corpus, tokens: Indices) -> Indices:
    """How many documents begin at or before each of ``tokens`` [..], by binary search.

    An .idx keeps its numbers where they are not aligned; ``np.searchsorted`` would
    first copy the whole memory map to aligned memory, 8 bytes a document.
    """
    low: Indices = np.zeros(len(tokens), dtype=np.int64)
    high: Indices = np.full(len(tokens), corpus.document_count, dtype=np.int64)
    for _ in range(corpus.document_count.bit_length()):
        middle = np.minimum((low + high) // 2, corpus.document_count - 1)
        beyond = (low == high) | (corpus.document_starts(middle) > tokens)
        high = np.where(beyond, np.minimum(middle, high), high)
        low = np.where(beyond, low, middle + 1)
    return low


def cut(corpus: Corpus, share: float) -> int:
    """The first beginning of a document at or behind ``share`` of the tokens; the end, where none follows."""
    wanted = int(share * len(corpus.tokens))
    following = begun(corpus, np.asarray([wanted - 1]))
    if following[0] == corpus.document_count:
        return len(corpus.tokens)
    return int(corpus.document_starts(following)[0])


def segments(corpus: Corpus, starts: Indices, rows: int) -> Segments:
    """Which document each of ``rows`` tokens from each of ``starts`` [B] on is in, as a count: [B, rows]."""
    begins: Segments = np.zeros((len(starts), rows), dtype=np.int32)
    first, after = np.split(begun(corpus, np.concatenate([starts, starts + rows - 1])), 2)
    inside = after - first  # documents that begin within each window
    window: Indices = np.repeat(np.arange(len(starts)), inside)
    numbers = np.arange(len(window)) + np.repeat(after - np.cumsum(inside), inside)
    begins[window, corpus.document_starts(numbers) - starts[window]] = 1
    return np.cumsum(begins, axis=1, dtype=np.int32)
