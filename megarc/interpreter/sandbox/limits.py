"""What a program in the sandbox may use."""

from __future__ import annotations

from megarc.config import Config, key

MEBIBYTE = 1 << 20


class Limits(Config):
    """Limits of one sandbox, which holds one interpreter and whatever that starts."""

    seconds: float = key(5.0, "wall time of one piece", gt=0)
    start_seconds: float = key(30.0, "wall time until an interpreter is ready", gt=0)
    cpu_seconds: int = key(60, "CPU time of each process over its life", ge=1)
    memory: int = key(512 * MEBIBYTE, "bytes of address space of each process", ge=16 * MEBIBYTE)
    tree_memory: int = key(1024 * MEBIBYTE, "bytes resident in all processes together, sampled", ge=MEBIBYTE)
    processes: int = key(32, "processes and threads together", ge=1)
    open_files: int = key(64, "open files of each process", ge=16)
    file_bytes: int = key(32 * MEBIBYTE, "bytes of one file", ge=0)
    disk_bytes: int = key(
        64 * MEBIBYTE, "bytes under /tmp, which is memory and the only place to write", ge=4096
    )
    output_bytes: int = key(MEBIBYTE, "bytes of output of one piece; beyond it the program is ended", ge=1)
