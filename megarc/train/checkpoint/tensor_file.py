"""A rank's tensors as a safetensors file, with its digest worked out while it is written.

safetensors' own writer copies every tensor to bytes first, and a digest would then have to read the whole file again.
Here three threads work at once, since none of them holds Python's lock for long: one hands the tensors' memory to the
kernel, one digests the same memory, and one asks the kernel to put on the disk what it has, so that the last wait is
short. The format: https://github.com/huggingface/safetensors (an 8-byte length, a JSON header, then the numbers).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import orjson
import torch
from torch import Tensor

_CHUNK = 1 << 22  # bytes that are written and digested at a time
_SYNC_EVERY = 1 << 25  # bytes, about, that the kernel may hold before it is asked to write them out
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """Writes contiguous tensors of the host's memory to ``path`` and waits until they are on the disk.

    Returns:
        The file's size in bytes and its SHA-256.

    Raises:
        OSError: where the disk does not take them.
    """
    digest, size = hashlib.sha256(), 0
    syncing: Future[None] | None = None
    unsynced = 0
    with path.open("wb", buffering=0) as file, _worker() as digesting, _worker() as pushing:
        done: list[Future[None]] = []
        for chunk in _chunks(tensors):
            done.append(digesting.submit(digest.update, chunk))
            _write_all(file.fileno(), chunk)
            size, unsynced = size + len(chunk), unsynced + len(chunk)
            if unsynced >= _SYNC_EVERY and (syncing is None or syncing.done()):
                if syncing is not None:
                    syncing.result()
                syncing, unsynced = pushing.submit(os.fdatasync, file.fileno()), 0
        if syncing is not None:
            syncing.result()
        os.fsync(file.fileno())
        for future in done:
            future.result()
    return size, digest.hexdigest()


def _worker() -> ThreadPoolExecutor:
    """A thread that does what it is given, one after the other."""
    return ThreadPoolExecutor(max_workers=1)


def _chunks(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """The file's bytes in their order: the header, then the tensors, wide numbers first, so that all are aligned."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    yield memoryview(_header(ordered))
    for _, tensor in ordered:
        if tensor.numel():
            view = memoryview(tensor.detach().view(-1).view(torch.uint8).numpy())
            for start in range(0, len(view), _CHUNK):
                yield view[start : start + _CHUNK]


def _header(ordered: list[tuple[str, Tensor]]) -> bytes:
    entries, offset = {}, 0
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.itemsize
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = orjson.dumps(entries)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_all(descriptor: int, chunk: memoryview) -> None:
    """One call may write less than it is given."""
    while len(chunk):
        chunk = chunk[os.write(descriptor, chunk) :]
