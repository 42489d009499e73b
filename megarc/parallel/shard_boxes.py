"""Which part of a parameter somebody holds.

A full parameter is a matrix ``[rows, columns]`` (a vector is one row). A
fragment is a 1-D tensor that holds one or more boxes of it, one after the
other, each row by row: a tensor-parallel shard, or the range of a shard that a
data rank owns under ZeRO.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """Rows ``top .. bottom-1``, columns ``left .. right-1``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def size(self) -> int:
        return (self.bottom - self.top) * self.width


def whole(shape: Sequence[int]) -> list[Box]:
    """All of a parameter of ``shape``, a matrix or a vector."""
    rows, columns = shape if len(shape) == 2 else (1, shape[0])
    return [Box(0, rows, 0, columns)]


def cut(boxes: Sequence[Box], start: int, stop: int) -> list[Box]:
    """Elements ``start .. stop-1`` of a fragment: of each of its boxes at most three."""
    found: list[Box] = []
    for offset, box in _with_offsets(boxes):
        first, last = max(start - offset, 0), min(stop - offset, box.size)
        while first < last:
            top, column = divmod(first, box.width)
            rows = (last - first) // box.width if column == 0 else 0
            if rows:
                piece = Box(box.top + top, box.top + top + rows, box.left, box.right)
            else:
                end = min(box.width, column + last - first)
                piece = Box(box.top + top, box.top + top + 1, box.left + column, box.left + end)
            found.append(piece)
            first += piece.size
    return found


def size(boxes: Sequence[Box]) -> int:
    """Elements of a fragment."""
    return sum(box.size for box in boxes)


class Overlap(NamedTuple):
    """``rows`` runs of ``width`` elements: where they begin in two fragments, and how far runs lie apart."""

    rows: int
    width: int
    source: int
    source_pitch: int
    target: int
    target_pitch: int


def overlaps(source: Sequence[Box], target: Sequence[Box]) -> Iterator[Overlap]:
    """What two fragments of one parameter have in common."""
    for source_offset, have in _with_offsets(source):
        for target_offset, want in _with_offsets(target):
            top, bottom = max(have.top, want.top), min(have.bottom, want.bottom)
            left, right = max(have.left, want.left), min(have.right, want.right)
            if top < bottom and left < right:
                yield Overlap(
                    rows=bottom - top,
                    width=right - left,
                    source=source_offset + (top - have.top) * have.width + left - have.left,
                    source_pitch=have.width,
                    target=target_offset + (top - want.top) * want.width + left - want.left,
                    target_pitch=want.width,
                )


def _with_offsets(boxes: Sequence[Box]) -> Iterator[tuple[int, Box]]:
    offset = 0
    for box in boxes:
        yield offset, box
        offset += box.size
