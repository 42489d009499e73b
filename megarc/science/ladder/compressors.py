"""General compressors as predictors: 8 x bytes written / tokens.

The figure depends on the form in which the tokens are written, so a row says which: ids as the corpus stores them, or
the text. Headers and checksums of the file formats are left out where the format allows it, because a short piece would
cost more for its header than for its text.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import zstandard

_DICTIONARY = 112 * 1024  # bytes; zstd's own default
_TRAINED_ON = 100  # times the dictionary's size, as zstd's manual asks for
_LARGEST_XZ = 64 << 20  # bytes: the window of xz -9


@dataclass(frozen=True, slots=True)
class Compressor:
    """``size(data)``: bytes that the compressed data take."""

    name: str
    size: Callable[[bytes], int]


def compressors() -> list[Compressor]:
    """gzip, bzip2, xz, zstd, and PPMd where pyppmd is installed."""
    found = [
        Compressor("gzip -9", _gzip),
        Compressor("bzip2 -9", lambda data: len(bz2.compress(data, 9))),
        Compressor("xz -9e", _xz),
        Compressor("zstd -19", _zstd),
    ]
    ppmd = _ppmd()
    return [*found, Compressor("PPMd order 16", ppmd)] if ppmd is not None else found


def with_dictionary(samples: Sequence[bytes]) -> Compressor | None:
    """zstd with a dictionary of training pieces, for short pieces; None where they are too few for one."""
    size = min(_DICTIONARY, sum(map(len, samples)) // 10)
    try:
        trained = zstandard.train_dictionary(size, list(samples))
    except (zstandard.ZstdError, ValueError):
        return None
    written = zstandard.ZstdCompressor(
        level=19, dict_data=trained, write_content_size=False, write_checksum=False, write_dict_id=False
    )
    return Compressor(f"zstd -19, dictionary of {size // 1024} KiB", lambda data: len(written.compress(data)))


def dictionary_bytes() -> int:
    """Bytes of training pieces that a dictionary is made from."""
    return _TRAINED_ON * _DICTIONARY


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """``data`` in pieces of ``size`` bytes."""
    return (data[first : first + size] for first in range(0, len(data), size))


def _gzip(data: bytes) -> int:
    written = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return len(written.compress(data)) + len(written.flush())


def _xz(data: bytes) -> int:
    # what is larger than the data costs time, and changes nothing
    window = min(_LARGEST_XZ, max(4096, len(data)))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    return len(lzma.compress(data, lzma.FORMAT_RAW, filters=filters))


def _zstd(data: bytes) -> int:
    written = zstandard.ZstdCompressor(level=19, write_content_size=False, write_checksum=False)
    return len(written.compress(data))


def _ppmd() -> Callable[[bytes], int] | None:
    """PPMd, variant H (7-zip's), order 16 in bytes."""
    try:
        import pyppmd
    except ImportError:
        return None

    def size(data: bytes) -> int:
        memory = min(1 << 30, max(1 << 20, 32 * len(data)))
        written = pyppmd.Ppmd7Encoder(16, memory)
        return len(written.encode(data)) + len(written.flush())

    return size
