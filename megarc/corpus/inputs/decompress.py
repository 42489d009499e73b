"""Opens inputs as streams of plain bytes, whatever they are compressed with."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from megarc.corpus.inputs.find_files import Input
from megarc.errors import UserError


@contextmanager
def open_stream(file: Input, start: int = 0) -> Iterator[BinaryIO]:
    """The decompressed bytes of ``file``; from stored byte ``start`` on, where a frame or line begins.

    Raises:
        UserError: for a file that cannot be opened or whose compression is damaged, also while reading.
    """
    try:
        with file.path.open("rb") as stored:
            if start:
                stored.seek(start)
            yield _decompressed(stored, file.compression)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{file.name} is damaged: {error}; fetch it again or --exclude it") from None
    except OSError as error:
        what = "is damaged" if error.errno is None else "cannot be read"
        raise UserError(f"{file.name} {what}: {error.strerror or error}") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise UserError(f"{file.name} is damaged: {error}; fetch it again or --exclude it") from None
        raise


def _decompressed(stored: BinaryIO, compression: str) -> BinaryIO:
    if compression == "gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=stored))
    if compression == "xz":
        return cast(BinaryIO, lzma.LZMAFile(stored))
    if compression == "bz2":
        return cast(BinaryIO, bz2.BZ2File(stored))
    if compression == "zst":
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True, closefd=False)
        return cast(BinaryIO, reader)
    return stored
