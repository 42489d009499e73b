"""A file written from memory, or read, in large blocks, some at a time, past the page cache where the disk allows it.

The page cache costs the processor more than the disk takes: each page is found, filled, written out later and evicted.
With ``O_DIRECT`` the disk reads our memory. It wants addresses, offsets and lengths that are multiples of its sectors:
hence ``aligned``. What is refused goes through the page cache, block by block.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from torch import Tensor

SECTOR = 4096  # bytes; the sectors of all disks divide it
BLOCK = 1 << 23  # bytes that one call writes
READ = 1 << 22  # bytes that one call reads: fewer, since this memory is new
# EFAULT: a driver has pinned this memory in a way of its own.
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP, errno.EFAULT)
AT_ONCE = 4  # calls that a disk is given at the same time


def aligned(size: int, *, pinned: bool = False) -> Tensor:
    """At least ``size`` bytes of the host's memory, uninitialized: whole sectors, from a multiple of a sector on."""
    whole = -(-size // SECTOR) * SECTOR
    memory = torch.empty(whole + SECTOR, dtype=torch.uint8, pin_memory=pinned)
    begin = -memory.data_ptr() % SECTOR
    return memory[begin : begin + whole]


class BlockWriter:
    """Writes the first ``size`` bytes of aligned memory to ``path`` in the background; ``finish`` waits for the disk.

    Args:
        memory: whole sectors, as ``aligned`` gives them. What lies behind ``size`` is not in the file.

    Raises:
        OSError: where the file cannot be opened.
    """

    def __init__(self, path: Path, memory: Tensor, size: int) -> None:
        self._memory, self._size, self.failed = memoryview(memory.numpy()), size, False
        self._stack = ExitStack()
        self._lanes = ThreadPoolExecutor(AT_ONCE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._cached = _opened(path, flags, self._stack)
        self._direct = _direct(path, os.O_WRONLY, self._stack)
        self._blocks = [self._lanes.submit(self._put, at) for at in range(0, size, BLOCK)]

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lanes.shutdown(cancel_futures=True)
        self._stack.close()

    def finish(self) -> None:
        """Returns when all is on the disk.

        Raises:
            OSError: where the disk did not take a block.
        """
        for block in self._blocks:
            block.result()
        os.ftruncate(self._cached, self._size)
        os.fsync(self._cached)

    def _put(self, at: int) -> None:
        """A block, in whole sectors, where the disk takes it so; what is left of it through the page cache."""
        try:
            at = self._put_directly(at, end := min(at + BLOCK, len(self._memory)))
            if at < (end := min(end, self._size)):
                while at < end:
                    at += os.pwrite(self._cached, self._memory[at:end], at)
                os.fdatasync(self._cached)  # now, and not all at the end
        except OSError:
            self.failed = True
            raise

    def _put_directly(self, at: int, end: int) -> int:
        """Where it has come to."""
        try:
            while self._direct is not None and at < end:
                at += os.pwrite(self._direct, self._memory[at:end], at)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
        return at


def read_blocks(path: Path, *, direct: bool = False) -> Iterator[tuple[int, Tensor]]:
    """Offset and bytes of each block of a file, in order; the next ones are read meanwhile.

    A block's memory is used again once the next is asked for.

    Args:
        direct: past the page cache: for a file that nobody on this host will read soon.

    Raises:
        OSError: where it cannot be read.
    """
    with ExitStack() as stack:
        cached = _opened(path, os.O_RDONLY, stack)
        straight = _direct(path, os.O_RDONLY, stack) if direct else None
        size = os.fstat(cached).st_size
        lanes = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        memory = aligned(min(AT_ONCE + 1, -(-size // READ)) * READ).split(READ)
        ahead: deque[tuple[int, Future[Tensor]]] = deque()
        for number, at in enumerate(range(0, size, READ)):
            if len(ahead) == len(memory):
                offset, block = ahead.popleft()
                yield offset, block.result()
            wanted = min(READ, size - at)
            into = memory[number % len(memory)]
            ahead.append((at, lanes.submit(_get, straight, cached, into, at, wanted)))
        for offset, block in ahead:
            yield offset, block.result()


def _get(direct: int | None, cached: int, memory: Tensor, at: int, wanted: int) -> Tensor:
    """``wanted`` bytes of a file from ``at`` on; fewer where it ends earlier."""
    view, got = memoryview(memory.numpy()), 0
    if direct is not None:
        try:
            got = min(wanted, os.preadv(direct, [view], at))
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
    while got < wanted and (more := os.preadv(cached, [view[got:wanted]], at + got)):
        got += more
    return memory[:got]


def _opened(path: Path, flags: int, stack: ExitStack) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    stack.callback(os.close, descriptor)
    return descriptor


def _direct(path: Path, flags: int, stack: ExitStack) -> int | None:
    """None where the file system, or the operating system, has no such access."""
    with suppress(OSError, AttributeError):
        return _opened(path, flags | os.O_DIRECT, stack)
    return None
