"""Lines of a byte range, such that the ranges of a file share its lines out without overlap or gap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

CHUNK_BYTES = 1 << 20


def lines_of(stream: BinaryIO, start: int, length: int | None) -> Iterator[tuple[int, bytes, bool]]:
    """``(offset, line without its newline, whether it had one)`` of the lines that belong to a range.

    ``stream`` stands at ``start`` of the decompressed file. A line belongs to the
    range in which the newline before it lies; the first line of the file belongs to
    the first range. So a range skips to its first newline, and reads on beyond its
    end until the line that began there is complete. No range needs another's bytes.

    Args:
        length: the range's bytes, None for all that follows.
    """
    stop = None if length is None else start + length
    offset = start
    skipping = start > 0
    pending: list[bytes] = []  # of a line longer than a chunk
    while chunk := stream.read(CHUNK_BYTES):
        if b"\n" not in chunk:
            pending.append(chunk)
            continue
        lines = b"".join([*pending, chunk]).split(b"\n")
        pending = [lines.pop()]
        for line in lines:
            if skipping:
                skipping = False
            elif stop is not None and offset > stop:
                return
            else:
                yield offset, line, True
            offset += len(line) + 1
        if stop is not None and offset > stop:
            return
    rest = b"".join(pending)
    if rest and not skipping and (stop is None or offset <= stop):
        yield offset, rest, False
