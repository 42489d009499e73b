"""What goes between cutting and reading: a range of an input, and the documents found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

_BLOCK_CHARACTERS = 1 << 20
_BLOCK_DOCUMENTS = 4096


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``stop`` of an input, as stored: the documents that begin there.

    ``offset`` is where ``start`` lies in the decompressed stream. In a parquet
    file the span's row groups are ``groups`` and ``offset`` is their first row.
    """

    input: int
    start: int
    stop: int
    offset: int
    content: int | None  # decompressed bytes, where known
    groups: tuple[int, int] | None = None


Piece = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Reject:
    """A bad line (or file, element, row): number ``line`` of its span, counted from 0."""

    line: int
    byte: int
    reason: str


@dataclass(slots=True)
class Block:
    """Some documents of a span.

    Attributes:
        borders: of each text, the characters before its answer.
        offsets: where each begins, which identifies it within its input.
        numbers: which line of the block each is.
    """

    texts: list[str] = field(default_factory=list)
    borders: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    lines: int = 0  # read, good and bad
    characters: int = 0

    def full(self) -> bool:
        return self.characters >= _BLOCK_CHARACTERS or len(self.texts) >= _BLOCK_DOCUMENTS

    def take(self, text: str, border: int, offset: int) -> None:
        self.texts.append(text)
        self.borders.append(border)
        self.offsets.append(offset)
        self.numbers.append(self.lines)
        self.characters += len(text)
        self.lines += 1

    def keep(self, wanted: Sequence[bool]) -> None:
        """Lets the other documents go; their lines stay counted."""
        self.texts = list(compress(self.texts, wanted))
        self.borders, self.offsets, self.numbers = (
            list(compress(values, wanted)) for values in (self.borders, self.offsets, self.numbers)
        )

    def reject(self, line: int, byte: int, reason: str) -> None:
        self.rejects.append(Reject(line, byte, reason))
        self.lines += 1
