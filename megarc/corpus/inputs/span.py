"""What goes between cutting and reading: a range of an input, and the documents found in it."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """Some documents of a span. ``offsets`` say where each begins, which identifies it within its input."""

    texts: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    lines: int = 0  # read, good and bad
    characters: int = 0

    def full(self) -> bool:
        return self.characters >= _BLOCK_CHARACTERS or len(self.texts) >= _BLOCK_DOCUMENTS

    def take(self, text: str, offset: int) -> None:
        self.texts.append(text)
        self.offsets.append(offset)
        self.characters += len(text)
        self.lines += 1

    def reject(self, line: int, byte: int, reason: str) -> None:
        self.rejects.append(Reject(line, byte, reason))
        self.lines += 1
