"""Writes to an object store: whole objects, each there whole or not at all, and what is listed and removed.

A file above some ten MiB goes up in parts, several at once, and is complete in one last request; where that fails the
parts are given up. Requests that fail are repeated by the store's library, and here once more with growing pauses.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from megarc.errors import UserError
from megarc.object_store import ask, explained, filesystem, read_range

T = TypeVar("T")

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
PAUSES = (1.0, 5.0, 20.0)  # seconds between tries


def put_bytes(url: str, content: bytes) -> None:
    """Writes a small object.

    Raises:
        UserError: if the store refuses a request or does not answer.
    """

    def put() -> None:
        with explained(url, "written"):
            filesystem(url).pipe_file(url, content)

    _persistent(put)


def put_file(url: str, path: Path, size: int) -> None:
    """Writes an object from a file of ``size`` bytes, unless it is there with that size already.

    Raises:
        UserError: if the store refuses a request or does not answer, or holds another number of bytes afterwards.
    """

    def put() -> None:
        there = ask(url)
        if there is not None and there.bytes == size:
            return
        with explained(url, "written"):
            filesystem(url).put_file(str(path), url)
        now = ask(url)
        if now is None or now.bytes != size:
            raise UserError(f"{url} has {now and now.bytes} bytes after {size} were written")

    _persistent(put)


def get_bytes(url: str) -> bytes | None:
    """A small object; None: there is none.

    Raises:
        UserError: if the store refuses a request or does not answer.
    """
    found = ask(url)
    return None if found is None else read_range(url, 0, found.bytes) if found.bytes else b""


def get_file(url: str, path: Path) -> None:
    """Copies an object to a file.

    Raises:
        UserError: if the store refuses a request or does not answer.
        OSError: where the file cannot be written.
    """

    def get() -> None:
        problem = None
        with explained(url):
            try:
                filesystem(url).get_file(url, str(path))
            except OSError as error:
                if error.errno not in _OF_THE_DISK:
                    raise
                problem = error
        if problem is not None:  # not the store's fault: neither explained as such nor tried again
            raise problem

    _persistent(get)


def names_below(url: str) -> list[str]:
    """The objects below a folder's URL, by their places there (``step-1/manifest.json``), sorted; of none: [].

    Raises:
        UserError: if the store refuses a request or does not answer.
    """
    with explained(url):
        found = filesystem(url).find(url)
    inside = url.partition("://")[2].strip("/") + "/"
    return sorted(name.lstrip("/").removeprefix(inside) for name in found)


def remove(urls: list[str]) -> None:
    """Removes objects one after the other; one that is not there is passed over.

    Raises:
        UserError: if the store refuses a request or does not answer.
    """
    for url in urls:
        with explained(url, "removed"), suppress(FileNotFoundError):
            filesystem(url).rm_file(url)


def _persistent(act: Callable[[], T]) -> T:
    for pause in PAUSES:
        try:
            return act()
        except UserError:
            time.sleep(pause)
    return act()
