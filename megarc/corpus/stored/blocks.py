"""The bytes of one object in blocks: from this process's maps, else from the host's cache, else from the store.

Missing blocks are requested all at once. When they have arrived, the store is asked whether the object is still the one
that was opened; only then do they enter the cache. If several processes need the same block, one requests it and the
others wait.
"""

from __future__ import annotations

import logging
import mmap
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.corpus.stored.cache_folder import CacheFolder, Claim
from megarc.errors import UserError
from megarc.object_store import StoredFile, ask, read_ranges

log = logging.getLogger("megarc")

_AT_ONCE = 64  # requests, and blocks in memory
_MOST_MAPPED = 4096  # blocks; a system allows a process some 65,000 maps
_TOUCH_SECONDS = 60.0  # between notes that a block is in use
_ANNOUNCERS = 4  # threads that read ahead
_WAITING = 64  # announcements that may wait for one of them; what comes then is dropped

Bytes: TypeAlias = npt.NDArray[np.uint8]


class Blocks:
    """Blocks 0, 1, ... of an object as it was when it was opened.

    Args:
        folder: where its blocks lie in the cache.
        block: bytes of each but the last.
        beside: other copies of the cache that are in use as long as this one is.

    Attributes:
        fetched: bytes that this process has asked the store for.

    Raises:
        UserError: in ``get``, if the store refuses a request or does not answer, or if the object has changed.
    """

    def __init__(
        self, file: StoredFile, cache: CacheFolder, folder: Path, block: int, beside: Sequence[Path] = ()
    ) -> None:
        self.file, self.cache, self.folder, self.block = file, cache, folder, block
        self.beside = list(beside)
        self.fetched = 0
        self._most = max(1, min(_MOST_MAPPED, cache.limit // block // 16))
        self._mapped: OrderedDict[int, tuple[Bytes, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._cached = True  # until the cache cannot be written
        self._asked: queue.Queue[list[int]] = queue.Queue(_WAITING)
        self._announcers = 0  # the process that started them

    def get(self, numbers: Iterable[int]) -> dict[int, Bytes]:
        """The blocks with these numbers."""
        wanted = sorted(set(numbers))
        found = self._in_memory(wanted)
        missing = [number for number in wanted if number not in found]
        while missing:
            some = missing[:_AT_ONCE]
            found |= self._fetch(some)
            missing = [number for number in missing if number not in found]
        return found

    def announce(self, numbers: Iterable[int]) -> None:
        """Brings blocks that are needed soon into the cache, in the background. It never waits and never fails."""
        missing = [number for number in sorted(set(numbers)) if not self._known(number)]
        if not missing or not self._cached:
            return
        if self._announcers != os.getpid():  # threads do not survive a fork
            self._announcers, self._asked = os.getpid(), queue.Queue(_WAITING)
            for _ in range(_ANNOUNCERS):
                threading.Thread(target=self._work, name="megarc-blocks", daemon=True).start()
        for first in range(0, len(missing), _AT_ONCE):
            if not self._asked.full():
                self._asked.put(missing[first : first + _AT_ONCE])

    # ---- from memory and the cache

    def _known(self, number: int) -> bool:
        return number in self._mapped or self._path(number).exists()

    def _in_memory(self, wanted: Sequence[int]) -> dict[int, Bytes]:
        found: dict[int, Bytes] = {}
        now = time.monotonic()
        with self._lock:
            for number in wanted:
                entry = self._mapped.get(number)
                if entry is None:
                    mapped = self._map(number)
                    if mapped is None:
                        continue
                    entry = (mapped, -_TOUCH_SECONDS)
                if now - entry[1] >= _TOUCH_SECONDS:
                    entry = (entry[0], now)
                    for path in (self._path(number), *self.beside):
                        self.cache.touch(path)
                self._mapped[number] = entry
                self._mapped.move_to_end(number)
                found[number] = entry[0]
            while len(self._mapped) > self._most:
                self._mapped.popitem(last=False)
        return found

    def _map(self, number: int) -> Bytes | None:
        path, (start, stop) = self._path(number), self._range(number)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != stop - start:  # a power failure, a hand
                    path.unlink(missing_ok=True)
                    return None
                return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except OSError:
            return None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.block"

    def _range(self, number: int) -> tuple[int, int]:
        return number * self.block, min((number + 1) * self.block, self.file.bytes)

    # ---- from the store

    def _fetch(self, numbers: Sequence[int]) -> dict[int, Bytes]:
        """Those of some blocks that this process fetched, or others meanwhile."""
        with ExitStack() as stack:
            claims: dict[int, Claim | None] = {}
            theirs = []
            for number in numbers:
                claim = self._claim(stack, number)
                if claim is None and self._cached:
                    theirs.append(number)
                elif not self._path(number).exists():
                    claims[number] = claim
            found = self._fetched(list(claims))
            for number, data in found.items():
                self._keep(claims[number], data)
        if theirs and not found:
            self._wait_for(theirs[0])
        # What was kept is mapped, so that a large batch does not hold all of its blocks in memory.
        found |= self._in_memory(numbers)
        # they are there, and cannot be opened: other rights, too many open files
        if not found and not theirs:
            found = self._fetched(numbers)
        return found

    def _fetched(self, numbers: Sequence[int]) -> dict[int, Bytes]:
        if not numbers:
            return {}
        data = read_ranges(self.file.url, [self._range(number) for number in numbers])
        now = ask(self.file.url)
        if now is None or now.version != self.file.version:
            raise UserError(
                f"{self.file.url} has {'gone' if now is None else 'changed'} since it was opened, so its samples "
                "would differ; restore the object and run the same command again, or start a new run"
            )
        self.fetched += sum(map(len, data))
        return {number: np.frombuffer(one, np.uint8) for number, one in zip(numbers, data, strict=True)}

    def _claim(self, stack: ExitStack, number: int) -> Claim | None:
        if not self._cached:
            return None
        try:
            return stack.enter_context(self.cache.claim(self._path(number), wait=False))
        except OSError as error:
            self._uncached(error)
            return None

    def _keep(self, claim: Claim | None, data: Bytes) -> None:
        if claim is None or not self._cached:
            return
        try:
            claim.file.write(data)
            self.cache.publish(claim)
        except OSError as error:
            self._uncached(error)

    def _uncached(self, error: OSError) -> None:
        if self._cached:
            log.warning(
                "the cache %s cannot be written (%s): %s is read without it from now on, which is slow; free some "
                "space there, or name another data.store_cache.folder",
                self.cache.path, error.strerror or error, self.file.url,
            )  # fmt: skip
        self._cached = False

    def _wait_for(self, number: int) -> None:
        try:
            with self.cache.claim(self._path(number), wait=True):
                pass
        except OSError as error:
            self._uncached(error)

    # ---- ahead

    def _work(self) -> None:
        asked = self._asked
        while True:
            numbers = [number for number in asked.get() if not self._known(number)]
            try:
                if numbers:
                    self._fetch(numbers)
            except UserError:
                pass  # whoever wants the block asks again, and raises it
