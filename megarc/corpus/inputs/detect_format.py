"""What a file holds, by its first bytes: how it is compressed, and whether it is JSON lines, parquet or text."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from itertools import islice
from pathlib import Path

import orjson

from megarc.object_store import StoredFile

_MAGIC = {
    b"\x1f\x8b": "gz",
    b"\x28\xb5\x2f\xfd": "zst",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bz2",
}
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5f: how parallel zstd begins
_HEAD_BYTES = 1 << 16
_MEMBERS, _TEXT_FIELDS = 16, frozenset(("txt", "text", "json"))  # of a tar
_BOM = b"\xef\xbb\xbf"


def compression_of(path: Path | StoredFile) -> str:
    """``gz``, ``zst``, ``xz``, ``bz2``, or nothing, by the file's first bytes."""
    with path.open("rb") as file:
        head = file.read(6)
    if head[:1] and 0x50 <= head[0] <= 0x5F and head[1:4] == _ZSTD_SKIPPABLE:
        return "zst"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def format_of(path: Path | StoredFile, compression: str) -> str | None:
    """``jsonl``, ``json``, ``parquet`` or ``text``, by the beginning of the content; None: it is none of them."""
    head = _head(path, compression)
    if head is None:
        return None
    if head.startswith(b"PAR1"):
        return "parquet"
    first = head.removeprefix(_BOM).lstrip()
    if first[:1] in (b"{", b"[", b'"'):
        return _json_kind(first)
    return "text" if _is_text(head) else None


def _json_kind(first: bytes) -> str | None:
    """What begins like JSON: an object or a string a line, a list, or text that only looks like it."""
    line, newline, _ = first.partition(b"\n")
    try:
        whole = orjson.loads(line)
    except orjson.JSONDecodeError:
        whole = None
    if isinstance(whole, dict | str):
        return "jsonl"
    if isinstance(whole, list):
        return "json"
    if not newline and first.startswith(b'{"'):
        return "jsonl"  # a line longer than what was read
    if first.startswith(b"[") and first[1:].lstrip()[:1] in (b"{", b'"'):
        return "json"
    if first.startswith(b"{") and first[1:].lstrip()[:1] == b'"':
        return None  # an object over several lines: nobody's text, and no line of JSON
    return "text" if _is_text(first) else None


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8 without a NUL, but for a character that the end of ``head`` cuts."""
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return len(head) - error.start < 4 and len(head) >= _HEAD_BYTES // 2
    return True


def _head(path: Path | StoredFile, compression: str) -> bytes | None:
    """The first bytes, decompressed; None where they cannot be."""
    try:
        with path.open("rb") as file:
            stored = file.read(_HEAD_BYTES)
        if compression == "zst":
            import zstandard

            return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stored)).read(_HEAD_BYTES)
        if compression == "gz":
            return zlib.decompressobj(31).decompress(stored, _HEAD_BYTES)
        if compression == "xz":
            return lzma.LZMADecompressor().decompress(stored, _HEAD_BYTES)
        if compression == "bz2":
            return bz2.BZ2Decompressor().decompress(stored, _HEAD_BYTES)
        return stored
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
        return None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            return None
        raise


def holds_samples(path: Path | StoredFile) -> bool:
    """Whether a tar begins as one of webdataset's with text: among its first files one is of a field txt or json."""
    try:
        with path.open("rb") as stored, tarfile.open(fileobj=stored, mode="r|*") as tar:
            names = [member.name for member in islice(tar, _MEMBERS) if member.isfile()]
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError):
        return False
    return any(name.rpartition("/")[2].partition(".")[2].lower() in _TEXT_FIELDS for name in names)
