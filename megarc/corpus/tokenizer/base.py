"""What every tokenizer offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from megarc.corpus.indexed.manifest import TokenizerFacts
from megarc.corpus.tokenizer.end_of_document import EndOfDocument
from megarc.errors import UserError

RESERVED = (
    *("<ro>", "</ro>", "<code>", "</code>", "<output>", "</output>"),
    *(f"<spare{number}>" for number in range(10)),
)
"""Tokens that text never turns into, kept for roll-outs, interpreters and what comes later.
Their order is the order of their ids, so it never changes: append, never insert."""


class Tokenizer(ABC):
    """Text to ids and back.

    Attributes:
        kind: ``sentencepiece``, ``huggingface`` or ``bytes``.
        digest: SHA-256 of what it was loaded from.
        vocabulary_size: ids are 0..vocabulary_size-1.
        reserved: tokens kept for later use, by name; text never turns into them.
        source: the file's content, None where there is no file.
        end: the token between documents and what chose it; None where there is none.
    """

    kind: str
    digest: str
    vocabulary_size: int
    reserved: dict[str, int]
    source: bytes | None = None
    end: EndOfDocument | None

    @property
    def end_of_document(self) -> int:
        """The id that stands between documents.

        Raises:
            UserError: where the tokenizer has none.
        """
        if self.end is None:
            raise UserError(
                f"this {self.kind} tokenizer has no end-of-document token that is known as such; name it with "
                "--eod-token, or pack without one (--no-append-eod)"
            )
        return self.end.id

    def encode(self, text: str) -> Any:
        """The ids of ``text``, i32 ``[tokens]``: exactly those of the library that the file belongs to.

        Raises:
            UserError: where ``text`` holds half a character (a lone surrogate).
        """
        require_whole(text)
        return self.encode_documents([text])[0]

    @abstractmethod
    def encode_documents(self, texts: Sequence[str]) -> tuple[Any, Any]:
        """The ids of many texts end to end, i32 ``[tokens]``, and each one's count, i32 ``[texts]``."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; bytes that are no UTF-8 become U+FFFD."""

    def facts(self) -> TokenizerFacts:
        """What a manifest says of it."""
        return TokenizerFacts(
            kind=self.kind,
            digest=self.digest,
            vocabulary_size=self.vocabulary_size,
            end_of_document=self.end.id if self.end else None,
            reserved=self.reserved,
        )


def require_whole(text: str) -> None:
    """
    Raises:
        UserError: where ``text`` holds half a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the text holds a lone surrogate at character {error.start}") from None


def join(parts: Sequence[Any]) -> tuple[Any, Any]:
    """Arrays of ids end to end, and their lengths: what ``encode_documents`` gives."""
    lengths = np.fromiter(map(len, parts), np.int32, len(parts))
    if len(parts) == 1 and getattr(parts[0], "dtype", None) in (np.int32, np.uint32):
        return parts[0].view(np.int32), lengths  # a long document is not copied
    return np.concatenate([np.empty(0, np.int32), *parts], dtype=np.int32, casting="unsafe"), lengths
