"""Where the frames of a .zst file lie (RFC 8878), so that it can be cut between them.

Reads headers only: 3 bytes a block of at most 128 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from megarc.errors import UserError
from megarc.object_store import StoredFile

_MAGIC = 0xFD2FB528
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_RLE_BLOCK = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes ``start`` to ``stop`` of the file; ``content`` bytes when decompressed, None where unknown."""

    start: int
    stop: int
    content: int | None


def zstd_frames(path: Path | StoredFile) -> list[Frame]:
    """The frames of a file, skippable ones left out.

    Raises:
        UserError: where the file is no zstd file, or is cut short.
    """
    size = path.bytes if isinstance(path, StoredFile) else path.stat().st_size
    frames = []
    with path.open("rb") as file:
        start = 0
        while start < size:
            frame, skippable = _frame(file, start, path)
            if frame.stop > size:
                raise UserError(f"{path} is damaged: its zstd frame at byte {start} is cut short")
            if not skippable:
                frames.append(frame)
            start = frame.stop
    return frames


def _frame(file: BinaryIO, start: int, path: Path | StoredFile) -> tuple[Frame, bool]:
    file.seek(start)
    head = file.read(18).ljust(18, b"\0")  # a header's longest form
    magic = int.from_bytes(head[:4], "little")
    if magic in _SKIPPABLE:
        return Frame(start, start + 8 + int.from_bytes(head[4:8], "little"), 0), True
    if magic != _MAGIC:
        raise UserError(f"{path} is damaged: no zstd frame begins at byte {start}")
    descriptor = head[4]
    single_segment, has_checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
    at = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    content = int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0) if width else None
    position = start + at + width
    last = False
    while not last:
        file.seek(position)
        block = file.read(3)
        if len(block) < 3:
            raise UserError(f"{path} is damaged: its zstd frame at byte {start} is cut short")
        header = int.from_bytes(block, "little")
        last = bool(header & 1)
        position += 3 + (1 if header >> 1 & 3 == _RLE_BLOCK else header >> 3)
    return Frame(start, position + 4 * has_checksum, content), False
