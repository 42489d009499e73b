"""A long document encoded in parts: the same ids in time and memory that grow with its length alone.

The libraries need more time or memory per character in a long text: SentencePiece's BPE keeps all merges of a document
in one queue, and Hugging Face's keeps some 50 bytes per character. Where token borders are known (`known_borders.py`),
the library encodes parts instead. A piece of each long document is also encoded as a whole and must give the same ids.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from megarc.corpus.tokenizer.base import Tokenizer, join
from megarc.corpus.tokenizer.known_borders import known_borders
from megarc.corpus.tokenizer.text_borders import TextBorders
from megarc.errors import UserError

_LONG = 1 << 17  # characters, from which on a document is cut
_PART = 1 << 14
_PARTS_AT_ONCE = 64
_AUDIT = 1 << 13  # characters of a long document that are encoded as a whole too


class EngineError(UserError):
    """A faster way to encode gave other ids than the library."""


class InParts(Tokenizer):
    """``exact``, which encodes long documents in parts."""

    def __init__(self, exact: Tokenizer) -> None:
        self.exact = exact
        self.kind, self.digest, self.source = exact.kind, exact.digest, exact.source
        self.vocabulary_size, self.reserved, self.end = exact.vocabulary_size, exact.reserved, exact.end
        self._chance = random.Random()

    @cached_property
    def borders(self) -> TextBorders | None:
        """Where a text can be cut; asked for when the first long document comes."""
        return known_borders(self.exact)

    def encode_documents(self, texts: Sequence[str]) -> tuple[Any, Any]:
        if max(map(len, texts), default=0) < _LONG or self.borders is None:
            return self.exact.encode_documents(texts)
        return join([self._ids(text, self.borders) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        return self.exact.decode(ids)

    def _ids(self, text: str, borders: TextBorders) -> Any:
        if len(text) < _LONG:
            return self.exact.encode_documents([text])[0]
        self._audit(text, borders)
        parts = borders.parts(text, _PART)
        groups = [parts[first : first + _PARTS_AT_ONCE] for first in range(0, len(parts), _PARTS_AT_ONCE)]
        return join([self.exact.encode_documents(group)[0] for group in groups])[0]

    def _audit(self, text: str, borders: TextBorders) -> None:
        first = self._chance.randrange(len(text) - _AUDIT)
        stretch = text[first : first + _AUDIT]
        whole = self.exact.encode_documents([stretch])[0]
        if not np.array_equal(whole, self.exact.encode_documents(borders.parts(stretch, _AUDIT // 8))[0]):
            raise EngineError(
                f"the {self.kind} library gives other ids for parts of a text than for the whole: {stretch[:40]!r}..."
            )
