"""What this process holds in memory, and giving back what it doesn't use."""

from __future__ import annotations

import ctypes
import math
import os
from contextlib import suppress
from pathlib import Path


def resident_megabytes() -> float:
    """Of this process; infinite where the system doesn't tell, so that whoever asks makes room for sure."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        return math.inf
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def give_back() -> None:
    """Returns freed memory to the system, which the C library otherwise keeps for the next time."""
    with suppress(AttributeError, OSError):  # where it is not glibc
        ctypes.CDLL(None).malloc_trim(0)
