"""A corpus as a source: its windows, each ``stride`` tokens after the one before.

The tokens stay on disk. A strided view shows them as the matrix of all windows
[count, n + 1], overlapping rows of one memory map, and a batch is a few rows of it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from megarc.data.pages import Pages
from megarc.data.source import Facts, Indices, Sample, Samples, Segments
from megarc.errors import UserError
from megarc.window import Window


class Corpus(Protocol):
    """Tokens on disk, document after document."""

    @property
    def tokens(self) -> npt.NDArray[Any]:
        """[tokens], whole numbers, best a memory map."""

    @property
    def documents(self) -> npt.NDArray[np.int64]:
        """[documents], where each begins: not falling, the first 0."""

    @property
    def digest(self) -> str:
        """Of the content."""


class StridedCorpus:
    """The windows of a corpus, or of the part of it that lies between two shares of its tokens.

    Parts are cut where a document begins, so that [0, x] and [x, 1] have no document in common.

    Args:
        facts: of the whole corpus.
        isolate: tell which document each row belongs to.

    Raises:
        UserError: where the part has no whole window.
    """

    def __init__(
        self,
        corpus: Corpus,
        window: Window,
        facts: Facts,
        *,
        part: tuple[float, float] = (0.0, 1.0),
        isolate: bool = False,
    ) -> None:
        begin, end = (_cut(corpus, share) for share in part)
        tokens = np.asarray(corpus.tokens)[begin:end]
        count = window.count(len(tokens))
        if not count:
            raise UserError(
                f"{facts.name}: a window {window} reads {window.tokens} tokens and there are only "
                f"{len(tokens)}; make the window shorter or give a longer corpus"
            )
        whole = len(tokens) == len(corpus.tokens)
        self.digest = corpus.digest if whole else f"{corpus.digest}[{begin}:{end}]"
        self.facts = facts if whole else _facts_of_part(corpus, facts, begin, end)
        self._window, self._begin = window, begin
        self._pages = Pages(tokens)
        self._documents = corpus.documents if isolate else None
        self._windows = np.lib.stride_tricks.sliding_window_view(tokens, window.tokens)[:: window.stride]
        assert len(self._windows) == count

    def __len__(self) -> int:
        return len(self._windows)

    def read(self, k: int) -> Sample:
        """Window k, a view of the memory map."""
        documents = self._segments(np.asarray([k]))[0] if self._documents is not None else None
        return Sample(self._windows[k], documents=documents)

    def read_many(self, k: Indices) -> Samples:
        """Windows k [B], copied."""
        self._pages.announce(k * self._window.stride, self._window.tokens)
        return Samples(self._windows[k], documents=self._segments(k) if self._documents is not None else None)

    def _segments(self, k: Indices) -> Segments:
        """The document of each row, counted from 0 in each window: [B, n]."""
        assert self._documents is not None
        rows = self._window.rows
        start = self._begin + k * self._window.stride
        begins: Segments = np.zeros((len(k), rows), dtype=np.int32)
        first = search_right(self._documents, start)
        after = search_right(self._documents, start + rows - 1)
        for row in np.nonzero(after > first)[0]:
            begins[row, self._documents[first[row] : after[row]] - start[row]] = 1
        return np.cumsum(begins, axis=1, dtype=np.int32)


def search_right(ordered: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> Indices:
    """``np.searchsorted(ordered, values, side="right")`` that reads log2(N) places and copies nothing.

    An .idx keeps its numbers where they are not aligned, and numpy's own would
    first copy the whole memory map to aligned memory: 8 bytes a document.
    """
    low: Indices = np.zeros(len(values), dtype=np.int64)
    high: Indices = np.full(len(values), len(ordered), dtype=np.int64)
    for _ in range(len(ordered).bit_length()):
        open_ = low < high
        middle = (low + high) // 2
        beyond = ordered[np.minimum(middle, len(ordered) - 1)] > values
        high = np.where(open_ & beyond, middle, high)
        low = np.where(open_ & ~beyond, middle + 1, low)
    return low


def _cut(corpus: Corpus, share: float) -> int:
    """The first beginning of a document at or behind ``share`` of the tokens; the end, where none follows."""
    wanted = int(share * len(corpus.tokens))
    following = int(search_right(corpus.documents, np.asarray([wanted - 1]))[0])
    return int(corpus.documents[following]) if following < len(corpus.documents) else len(corpus.tokens)


def _facts_of_part(corpus: Corpus, facts: Facts, begin: int, end: int) -> Facts:
    first, after = search_right(corpus.documents, np.asarray([begin - 1, end - 1]))
    name = f"{facts.name} [{begin}:{end}]"
    return Facts(
        name, end - begin, int(after - first), facts.bytes_per_token, facts.vocabulary, facts.tokenizer_digest
    )
