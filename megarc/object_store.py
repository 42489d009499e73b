"""Files of an object store (``s3://bucket/key``, ``gs://...``), read by ranges through fsspec.

Only this file and ``object_upload``, which writes, know fsspec. Credentials come from where the store's own tools
take them (environment, profile, instance); a URL never holds any, so that none
reaches a log or a manifest. A request that fails is repeated by the store's
library (s3fs: five times, with growing pauses); what still fails is a UserError
that names the object.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

from megarc.errors import UserError

_RANGE_BYTES = 4 << 20  # of one request: fewer would wait for the store, more would be thrown away by a seek
_EXTRAS = {"gs": "gcs", "gcs": "gcs"}  # what to install; of other stores s3
_TIMES = ("LastModified", "mtime", "updated", "modified", "created")
_LOCAL = ("file", "local")
# key:secret@, where a secret may have a slash
_NAMED = re.compile(r"\w+://[^/]*@|(s3|gs|gcs)://(?!arn:)[^/:]+:.*@")


def is_stored(name: str) -> bool:
    """Whether ``name`` is a URL (``s3://...``), not a path of this machine."""
    scheme, found, _ = name.partition("://")
    return bool(found) and scheme.isalnum()


def names_this_machine(url: str) -> bool:
    """Whether a URL is one of files here, which no store has: ``file:///data``."""
    return url.partition("://")[0] in _LOCAL


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object, with the part of ``pathlib.Path`` that readers use."""

    url: str
    bytes: int
    version: str = field(compare=False)  # another one, other bytes: size, and the store's tag or time

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def suffix(self) -> str:
        return self._pure.suffix

    @property
    def suffixes(self) -> list[str]:
        return self._pure.suffixes

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition("://")[2])

    def relative_to(self, folder: str) -> PurePosixPath:
        """The place of the object below the URL ``folder``."""
        return PurePosixPath(self.url.removeprefix(folder.rstrip("/") + "/"))

    def is_file(self) -> bool:
        return True

    @property
    def found(self) -> Any:
        """As ``stat``, of the time when the object was found."""
        tag = int.from_bytes(hashlib.sha256(self.version.encode()).digest()[:7], "little")
        return SimpleNamespace(st_size=self.bytes, st_mtime_ns=tag)

    def stat(self) -> Any:
        """``st_size`` in bytes and ``st_mtime_ns``, a number that changes with ``version``: the store is asked again.

        Raises:
            UserError: if the object no longer exists.
        """
        now = ask(self.url)
        if now is None:
            raise UserError(f"{self.url} no longer exists")
        return now.found

    def open(self, mode: str = "rb") -> BinaryIO:
        """A seekable stream of the object's bytes; reads 4 MiB a request.

        Raises:
            UserError: while it is read, where the store refuses or stays away.
        """
        if mode != "rb":
            raise ValueError(f"{self.url} is read only in mode rb, not {mode}")
        return cast(BinaryIO, io.BufferedReader(_Ranges(self), _RANGE_BYTES))


class _Ranges(io.RawIOBase):
    """Each read is one request for a range."""

    def __init__(self, file: StoredFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.bytes}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._file.bytes)
        if stop <= self._at:
            return 0
        data = read_range(self._file.url, self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes ``start`` to ``stop`` of an object.

    Raises:
        UserError: where the store refuses, stays away, or gives fewer bytes.
    """
    with explained(url):
        data = bytes(filesystem(url).cat_file(url, start=start, end=stop))
    if len(data) != stop - start:
        raise UserError(f"{url} changed while it was read: bytes {start} to {stop} are {len(data)} bytes")
    return data


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Bytes ``start`` to ``stop`` of each of ``ranges`` of one object, asked for all at once.

    Raises:
        UserError: as ``read_range``.
    """
    with explained(url):
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        found = filesystem(url).cat_ranges([url] * len(ranges), starts, stops, on_error="return")
        failed = next((one for one in found if isinstance(one, BaseException)), None)
        if failed is not None:
            raise failed
    for data, (start, stop) in zip(found, ranges, strict=True):
        if len(data) != stop - start:
            raise UserError(f"{url} changed while it was read: bytes {start} to {stop} are {len(data)} bytes")
    return [bytes(data) for data in found]


def ask(url: str) -> StoredFile | None:
    """An object as the store has it now; None: there is none of that name.

    Raises:
        UserError: if the store refuses a request or does not answer, or the URL holds credentials.
    """
    _refuse_credentials(url)
    with explained(url):
        kind = _info(filesystem(url), url)
        return _file(url, kind) if kind.get("type") == "file" else None


def find_stored(url: str) -> tuple[list[StoredFile], str | None]:
    """The objects that a URL stands for, sorted, and the folder that they were found in.

    A URL is an object, a folder (all objects below it) or a glob; only a folder is returned as such.

    Raises:
        UserError: where nothing fits, or the store refuses.
    """
    _refuse_credentials(url)
    with explained(url):
        store = filesystem(url)
        if any(sign in url for sign in "*?["):
            files = fitting(url)
            if not files:
                raise UserError(f"no object matches {url}")
            return files, None
        kind = {} if url.endswith("/") else _info(store, url)
        if kind.get("type") == "file":
            return [_file(url, kind)], None
        found = store.find(url, detail=True).values()
        files = _files(url, found)
        if not files:
            raise UserError(f"no such object or folder: {url}")
        return files, url


def fitting(url: str) -> list[StoredFile]:
    """The objects that fit the glob ``url``, sorted.

    Raises:
        UserError: if the store refuses a request or does not answer.
    """
    _refuse_credentials(url)
    with explained(url):
        found = filesystem(url).glob(url, detail=True).values()
    hidden = url.rpartition("/")[2].startswith(".")  # as a shell's glob, whose * fits none of them
    return _files(url, [one for one in found if hidden or not one["name"].rpartition("/")[2].startswith(".")])


def holds_credentials(url: str) -> bool:
    """Whether there is a name, or a name and a secret, before an @."""
    return _NAMED.match(url) is not None


def without_credentials(text: str) -> str:
    """``text`` for people, without what stands on a line between the first :// and the last @.

    Searched for from both ends: a pattern of the whole URL takes minutes in a megabyte of one word.
    """
    lines = []
    for line in text.split("\n"):
        begin, end = line.find("://"), line.rfind("@")
        lines.append(f"{line[: begin + 3]}...{line[end:]}" if 0 <= begin < end else line)
    return "\n".join(lines)


def _refuse_credentials(url: str) -> None:
    if holds_credentials(url):
        raise UserError(
            f"{url.partition('://')[0]}://... holds a name before an '@': credentials belong in the environment or "
            "a profile of the store's tools, not in a URL"
        )


def _info(store: Any, url: str) -> dict[str, Any]:
    try:
        return dict(store.info(url))
    except FileNotFoundError:
        return {}


def _files(url: str, found: Any) -> list[StoredFile]:
    scheme = url.partition("://")[0]
    files = [
        _file(f"{scheme}://{entry['name'].lstrip('/')}", entry) for entry in found if entry["type"] == "file"
    ]
    return sorted(files, key=lambda file: file.url)


def _file(url: str, entry: dict[str, Any]) -> StoredFile:
    when = next((entry[name] for name in _TIMES if entry.get(name)), 0)
    when = when.timestamp() if hasattr(when, "timestamp") else when  # in two types: of a list, of one object
    tag = next((entry[name] for name in ("ETag", "etag", "generation") if entry.get(name)), when)
    size = int(entry["size"] or 0)
    return StoredFile(url, size, f"{size}:{tag}")


def filesystem(url: str) -> Any:
    """fsspec's store of a URL, for this process.

    Raises:
        UserError: where the package for it is missing, or there is no such kind of store.
    """
    return _filesystem_of(url.partition("://")[0], os.getpid())


@lru_cache(maxsize=8)
def _filesystem_of(scheme: str, process: int) -> Any:
    """A new one in each process, since none survives a fork; what others write is seen at once."""
    if scheme in _LOCAL:
        raise UserError(f"{scheme}:// names a file on this machine: give its path instead")
    try:
        import fsspec

        return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)
    except ImportError:
        extra = _EXTRAS.get(scheme, "s3")
        raise UserError(f"{scheme}:// needs another package: pip install 'megarc[{extra}]'") from None
    except ValueError as error:
        raise UserError(
            f"{scheme}:// is no store that fsspec knows: {error}; copy the files to a disk, or to s3://"
        ) from None


@contextmanager
def explained(url: str, verb: str = "read") -> Iterator[None]:
    """Whatever a store's libraries raise, as one sentence."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{url} does not exist, or its bucket does not: {_short(error)}") from None
    except PermissionError as error:
        _filesystem_of.cache_clear()  # the next try reads the credentials again: a profile's may be new by then
        raise UserError(
            f"the store refuses {url}: {_short(error)}; are the credentials right and not expired?"
        ) from None
    except Exception as error:  # botocore, aiohttp and fsspec have families of their own
        name = type(error).__name__
        if "Credentials" in name or "Credentials" in str(error):
            _filesystem_of.cache_clear()
            raise UserError(
                f"there are no credentials for {url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or "
                "what the store's own tools take"
            ) from None
        raise UserError(
            f"{url} cannot be {verb}, even after repeated requests: {name}: {_short(error)}"
        ) from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
