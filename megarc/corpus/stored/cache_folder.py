"""A folder of copies with a fixed size, which all processes of a host share.

CACHE/lock                 held while room is made
CACHE/used                 bytes of all copies, as a decimal number; never too few
CACHE/OBJECT/NAME          a complete copy; OBJECT is 32 hexadecimal digits
CACHE/OBJECT/NAME.partial  being written, locked by its writer until it takes its name

Whatever else lies in the folder is the user's: it is neither counted nor removed.
A lock ends with its process, so a killed process leaves no lock that others wait for and no copy that looks complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from megarc.errors import UserError

_SLACK = 16  # of a full cache this part is freed at once
_PARTIAL = ".partial"
_OBJECT = re.compile("[0-9a-f]{32}")  # as ``CacheFolder.folder`` names them


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write one copy, while it is open."""

    path: Path
    file: BinaryIO


class CacheFolder:
    """Copies of at most ``limit`` bytes below ``path``; processes may map more of them, which others have removed."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit

    def folder(self, *identity: object) -> Path:
        """The place of the copies of one version of an object.

        Raises:
            OSError: where it cannot be made.
        """
        name = hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
        place = self.path / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    @contextmanager
    def claim(self, path: Path, *, wait: bool) -> Iterator[Claim | None]:
        """The right to write ``path``; None: another process or thread has it, and ``wait`` is not set.

        Raises:
            OSError: where the folder cannot be written.
        """
        partial = Path(f"{path}{_PARTIAL}")
        while True:
            file = _opened(partial)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.close()
                yield None
                return
            if _is(file, partial):
                break
            file.close()  # it has taken its name since, or was removed
        file.truncate(0)  # of what a killed writer left
        try:
            yield Claim(path, file)
        finally:
            if _is(file, partial):
                partial.unlink(missing_ok=True)
            file.close()

    def publish(self, claim: Claim) -> None:
        """What was written to a claim takes its name, once there is room for it.

        Raises:
            OSError: for a full disk.
            UserError: for a copy that is larger than the cache.
        """
        claim.file.flush()
        size = os.fstat(claim.file.fileno()).st_size
        if size > self.limit:
            raise UserError(
                f"a file of {size} bytes does not fit into {self.path}, which may hold {self.limit} bytes; give "
                "data.store_cache.gib more"
            )
        with (self.path / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._make_room(size)
            Path(f"{claim.path}{_PARTIAL}").replace(claim.path)

    def touch(self, path: Path) -> None:
        """A copy was used: it stays longer."""
        with suppress(OSError):
            os.utime(path)

    def used(self) -> int:
        """Bytes of all copies, by looking at them."""
        return sum(size for _, size, _ in self._copies())

    # ---- room

    def _make_room(self, size: int) -> None:
        used = self._told()
        if used is None or used + size > self.limit:
            used = self._evict(self.limit - max(size, self.limit // _SLACK))
        beside = self.path / "used.new"
        beside.write_text(str(used + size))
        beside.replace(self.path / "used")

    def _told(self) -> int | None:
        try:
            return int((self.path / "used").read_text())
        except (OSError, ValueError):
            return None

    def _evict(self, target: int) -> int:
        """Removes what was used longest ago, until ``target`` bytes are left; how many there are."""
        copies = self._copies()
        total = sum(size for _, size, _ in copies)
        for _, size, path in sorted(copies):
            if total <= target:
                break
            with suppress(FileNotFoundError):
                Path(path).unlink()
            total -= size
        return total

    def _copies(self) -> list[tuple[int, int, str]]:
        """``(used at, bytes, path)`` of all copies; what killed writers left is removed."""
        found = []
        for folder in os.scandir(self.path):
            if not (_OBJECT.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)):
                continue
            for entry in os.scandir(folder.path):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(_PARTIAL):
                        _remove_if_left(Path(entry.path))
                        continue
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
        return found


def _opened(partial: Path) -> BinaryIO:
    """For writing, as it is: another may be writing it."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b")


def _is(file: BinaryIO, path: Path) -> bool:
    """Whether ``path`` is still the name of the open ``file``."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(file.fileno())
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)


def _remove_if_left(partial: Path) -> None:
    with suppress(OSError), partial.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is(file, partial):
            partial.unlink()
