"""Rows of tokens from a corpus, wherever it lies: of a memory map views, of an object store copies."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from megarc.corpus import StoredTokens
from megarc.data.page_cache import Pages
from megarc.data.source import Indices, Tokens


class TokenRows(Protocol):
    """Tokens ``begin`` to ``end`` of a corpus, counted from ``begin``; ``far``: in a store, so ``announce`` pays."""

    far: bool

    def __len__(self) -> int: ...

    def between(self, start: int, stop: int) -> Tokens:
        """Tokens start .. stop - 1."""

    def read(self, starts: Indices, length: int) -> Tokens:
        """``length`` tokens from each of ``starts`` [B] on: [B, length], copied."""

    def ready(self, starts: Indices, lengths: Indices) -> None:
        """These tokens are read next, one after the other: they are brought here all at once."""

    def announce(self, starts: Indices, lengths: int | Indices) -> None:
        """These tokens are read in some steps. Does not wait."""


def token_rows(tokens: Any, begin: int, end: int) -> TokenRows:
    """The rows of ``tokens`` of a corpus: an array (a memory map, best), or ``StoredTokens``."""
    if isinstance(tokens, StoredTokens):
        return StoredRows(tokens, begin, end)
    return MappedRows(np.asarray(tokens)[begin:end])


class MappedRows:
    """Of a corpus on a disk."""

    far = False

    def __init__(self, tokens: Tokens) -> None:
        self._tokens, self._pages = tokens, Pages(tokens)
        self._views: dict[
            int, Tokens
        ] = {}  # all rows of a length, overlapping: [tokens - length + 1, length]

    def __len__(self) -> int:
        return len(self._tokens)

    def between(self, start: int, stop: int) -> Tokens:
        return self._tokens[start:stop]

    def read(self, starts: Indices, length: int) -> Tokens:
        self._pages.announce(starts, length)
        if length not in self._views:
            self._views[length] = np.lib.stride_tricks.sliding_window_view(self._tokens, length)
        return self._views[length][starts]

    def ready(self, starts: Indices, lengths: Indices) -> None:
        """The system brings pages as they are touched."""

    def announce(self, starts: Indices, lengths: int | Indices) -> None:
        """Left to the reading thread, which asks for its pages."""


class StoredRows:
    """Of a corpus in an object store."""

    far = True

    def __init__(self, tokens: StoredTokens, begin: int, end: int) -> None:
        self._tokens, self._begin, self._end = tokens, begin, end

    def __len__(self) -> int:
        return self._end - self._begin

    def between(self, start: int, stop: int) -> Tokens:
        start, stop = min(start, len(self)), min(stop, len(self))
        return self._tokens.read([self._begin + start], max(stop - start, 0))[0]

    def read(self, starts: Indices, length: int) -> Tokens:
        return self._tokens.read(self._begin + starts, length)

    def ready(self, starts: Indices, lengths: Indices) -> None:
        self._tokens.fetch(self._begin + starts, lengths)

    def announce(self, starts: Indices, lengths: int | Indices) -> None:
        self._tokens.announce(self._begin + starts, lengths)
