"""What a disk does with the same bytes in the same number of files, without a checkpoint: nothing of megarc's is used.

Each function takes files and returns when the disk is done: written files are synced. Blocks of 8 MiB, four at a time,
past the page cache (``O_DIRECT``) or through it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

BLOCK = 8 << 20
AT_ONCE = 4
SECTOR = 4096


def memory(content: bytes = b"") -> mmap.mmap:
    """A block that begins at a page, as O_DIRECT requires."""
    block = mmap.mmap(-1, BLOCK)
    block.write(content or os.urandom(BLOCK))
    return block


def write(sizes: dict[Path, int], content: mmap.mmap, *, direct: bool) -> None:
    """Writes ``content`` again and again into files of these sizes, in whole sectors, and syncs them."""

    def put(opened: int, at: int, size: int) -> None:
        os.pwrite(opened, memoryview(content)[: min(BLOCK, -(-(size - at) // SECTOR) * SECTOR)], at)

    _in_blocks(sizes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, direct, put, sync=True)


def read(sizes: dict[Path, int], blocks: list[mmap.mmap], *, direct: bool) -> None:
    """Reads the files into ``AT_ONCE`` blocks of memory."""

    def get(opened: int, at: int, size: int) -> None:
        os.preadv(opened, [blocks[at // BLOCK % AT_ONCE]], at)

    _in_blocks(sizes, os.O_RDONLY, direct, get, sync=False)


def digest(sizes: dict[Path, int], content: mmap.mmap) -> None:
    """SHA-256 of as many bytes, a thread for each file: no checkpoint with digests is faster."""

    def one(size: int) -> None:
        found = hashlib.sha256()
        for at in range(0, size, BLOCK):
            found.update(memoryview(content)[: min(BLOCK, size - at)])

    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(one, sizes.values()))


def forget(paths: list[Path]) -> None:
    """Leaves nothing of the files in the page cache: the next reader reads the disk."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _in_blocks(
    sizes: dict[Path, int], flags: int, direct: bool, call: Callable[[int, int, int], None], *, sync: bool
) -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        done = []
        opened = {path: os.open(path, flags | (os.O_DIRECT if direct else 0), 0o666) for path in sizes}
        for at in range(0, max(sizes.values()), BLOCK):  # files side by side
            for path, size in sizes.items():
                if at < size:
                    done.append(pool.submit(call, opened[path], at, size))
        for one in done:
            one.result()
        for descriptor in opened.values():
            if sync:
                os.fsync(descriptor)
            os.close(descriptor)
