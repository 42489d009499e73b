"""Asks the system for the pages of a memory map that are about to be read, and lets go of old ones.

Touched one after the other, a batch's windows would each wait for the disk, and
each would bring 128 KB of neighbours along that nobody wants. Asked for all of them
beforehand, the system fetches only their pages, all at once. Where they are in
memory already this costs half a microsecond a window.

Pages that were read stay in the system's cache, for whoever wants them next, as
long as there is room. But they also stay in this process's map and count as its
memory, until it would seem as large as the corpus: so they are let go now and then.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

_ADVICE = getattr(mmap, "MADV_WILLNEED", None)
_LET_GO = getattr(mmap, "MADV_DONTNEED", None)
_WINDOWS_KEPT = 4096  # each maps up to 64 KB of neighbours that are in memory anyway: 256 MB at most


class Pages:
    """The pages below ``array``, a contiguous view of a memory map (of anything else: nothing happens)."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        # Letting go of a page that was written would lose what was written: only maps that are for reading.
        self._map = _map_below(array) if _ADVICE and _LET_GO and not array.flags.writeable else None
        self._item = array.itemsize
        self._windows = 0
        if self._map is not None:
            self._offset = _address(array) - _address(np.frombuffer(self._map, dtype=np.uint8))

    def announce(self, begins: npt.NDArray[np.int64], length: int) -> None:
        """The items ``begins[..]`` to ``begins[..] + length`` will be read next."""
        if self._map is None or _ADVICE is None or _LET_GO is None:
            return
        self._windows += len(begins)
        if self._windows > _WINDOWS_KEPT:
            self._map.madvise(_LET_GO)
            self._windows = len(begins)
        first = self._offset + np.sort(begins) * self._item
        page = first // mmap.PAGESIZE * mmap.PAGESIZE
        for at, size in zip(page.tolist(), (first - page + length * self._item).tolist(), strict=True):
            self._map.madvise(_ADVICE, at, size)


def _map_below(array: Any) -> mmap.mmap | None:
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
