"""Which part of a parameter a fragment is.

A full parameter is seen as a matrix ``[outer, inner]``; a fragment is a 1-D
tensor that holds one or more boxes of it, one after the other, each row by row.
A parameter that is held whole is one row: ``[1, elements]``. (One split along
its dimension t is ``[prod(shape[:t]), rest]``; a contiguous range of such a
shard is at most three boxes.)
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


def interval(start: int, stop: int) -> list[Box]:
    """Elements ``start .. stop-1`` of a parameter that is held whole."""
    return [Box(0, 1, start, stop)] if stop > start else []


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
