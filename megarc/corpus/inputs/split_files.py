"""Cuts inputs into pieces of work, so that one big file keeps all workers busy.

The pieces depend on the files alone, never on workers or parts; and the packed
corpus does not depend on the pieces either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from megarc.corpus.indexed.digest import LEAF_BYTES
from megarc.corpus.inputs.byte_range import Piece, Span
from megarc.corpus.inputs.find_files import Input
from megarc.corpus.inputs.zstd_frames import zstd_frames

BIGGEST_PIECE = 16 * LEAF_BYTES
_PIECES = 32  # a small job is cut at least into so many
_FILES_A_PIECE = 1000
_ZSTD_RATIO = 4  # roughly; so that a compressed piece takes as long as a plain one


def cut(inputs: Sequence[Input], limit: int | None = None) -> list[Piece]:
    """All inputs as pieces, in order: a range of a big file, or several small files.

    Args:
        limit: bytes of a piece, a multiple of ``LEAF_BYTES``; None: by the size of the job.

    Raises:
        UserError: for a compressed or parquet file whose structure is damaged.
    """
    pieces: list[Piece] = []
    small: list[Span] = []
    size = 0
    limit = limit or _piece_bytes(inputs)
    for number, file in enumerate(inputs):
        for span in _spans(number, file, limit):
            small.append(span)
            size += max(span.stop - span.start, span.content or 0)
            if size >= limit or len(small) >= _FILES_A_PIECE:
                pieces.append(tuple(small))
                small, size = [], 0
    return [*pieces, tuple(small)] if small else pieces


def uncut(inputs: Sequence[Input], pieces: Sequence[Piece]) -> list[Input]:
    """Big inputs that lie in one span, so that one worker alone reads each."""
    spans = [0] * len(inputs)
    for piece in pieces:
        for span in piece:
            spans[span.input] += 1
    big = [file.bytes > BIGGEST_PIECE and count == 1 for file, count in zip(inputs, spans, strict=True)]
    return [file for file, is_big in zip(inputs, big, strict=True) if is_big]


def _piece_bytes(inputs: Sequence[Input]) -> int:
    """A whole number of MiB, so that the digests of pieces make the digest of the file."""
    total = sum(file.bytes for file in inputs)
    return min(max(total // _PIECES // LEAF_BYTES, 1) * LEAF_BYTES, BIGGEST_PIECE)


def _spans(number: int, file: Input, limit: int) -> Iterator[Span]:
    if file.format == "parquet" and not file.compression:
        from megarc.corpus.inputs.parquet import row_groups

        rows = row_groups(file.path)
        yield from _grouped(number, file, rows, len(rows))
    elif file.format == "arrow" and not file.compression:
        from megarc.corpus.inputs.arrow import batch_rows

        yield from _grouped(number, file, batch_rows(file.path), -(-file.bytes // limit))
    elif file.format == "jsonl" and file.compression == "zst":
        yield from _framed(number, file, limit)
    elif file.format == "jsonl" and not file.compression and file.bytes:
        for start in range(0, file.bytes, limit):
            stop = min(start + limit, file.bytes)
            yield Span(number, start, stop, start, stop - start)
    else:
        if file.compression == "zst":
            zstd_frames(file.path)  # the decompressor does not notice a missing end
        yield Span(number, 0, file.bytes, 0, None if file.compression or file.name == "-" else file.bytes)


def _grouped(number: int, file: Input, rows: Sequence[int], most: int) -> Iterator[Span]:
    """At most ``most`` spans of neighbouring groups of rows; what a span is of the file's bytes is a guess."""
    count = max(min(len(rows), most), 1)
    first_row = 0
    for part in range(count):
        groups = (len(rows) * part // count, len(rows) * (part + 1) // count)
        edges = [file.bytes * edge // count for edge in (part, part + 1)]
        yield Span(number, edges[0], edges[1], first_row, None, groups)
        first_row += sum(rows[slice(*groups)])


def _framed(number: int, file: Input, limit: int) -> Iterator[Span]:
    frames = zstd_frames(file.path)
    if any(frame.content is None for frame in frames) or not frames:
        yield Span(number, 0, file.bytes, 0, None)
        return
    offset, first, content = 0, 0, 0
    for index, frame in enumerate(frames):
        content += frame.content or 0
        last = index == len(frames) - 1
        if last or content >= limit or frame.stop - first >= limit // _ZSTD_RATIO:
            stop = file.bytes if last else frame.stop
            yield Span(number, first, stop, offset, content)
            offset, first, content = offset + content, stop, 0
