"""A safetensors file: its image in memory, which is written as it is, and where its tensors lie.

safetensors' own writer copies every tensor to bytes first, and a digest would then have to read the whole file again.
Here the tensors are copied once, to where they will stand in the file. From there the disk takes them while the same
memory is digested. The format: https://github.com/huggingface/safetensors (an 8-byte length, a JSON header, then the
numbers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson
import torch
from safetensors import safe_open
from torch import Tensor

from megarc.train.checkpoint.disk_blocks import BLOCK, BlockWriter, aligned

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_BY_NAME = {name: dtype for dtype, name in _DTYPES.items()}


class FileImage:
    """The bytes of a safetensors file in memory that is kept from file to file; pinned where tensors are on a GPU."""

    def __init__(self) -> None:
        self._memory, self.size = torch.empty(0, dtype=torch.uint8), 0

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies the tensors to their places. Wide numbers come first, so that all are aligned."""
        ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
        header = _header(ordered)
        self.size = len(header) + sum(_bytes(tensor) for _, tensor in ordered)
        if self._memory.numel() < self.size:
            self._memory = torch.empty(0, dtype=torch.uint8)  # never both
            self._memory = aligned(self.size, pinned=any(tensor.is_cuda for _, tensor in ordered))
        self._memory[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
        at = len(header)
        for _, tensor in ordered:
            place = self._memory[at : at + _bytes(tensor)]
            place.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
            at += _bytes(tensor)

    def write(self, path: Path) -> str:
        """Writes the file and waits until it is on the disk.

        Returns:
            Its SHA-256.

        Raises:
            OSError: where the disk does not take it.
        """
        content, digest = memoryview(self._memory.numpy())[: self.size], hashlib.sha256()
        with BlockWriter(path, self._memory, self.size) as writer:
            for at in range(0, self.size, BLOCK):
                if writer.failed:
                    break
                digest.update(content[at : at + BLOCK])
            writer.finish()
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor's place in its file: bytes ``begin .. end-1``."""

    begin: int
    end: int
    dtype: torch.dtype
    shape: list[int]


def stored_tensors(path: Path) -> dict[str, Stored]:
    """Where the tensors of a file lie; those of types that no checkpoint has are left out.

    Raises:
        SafetensorError, OSError: where it is no such file.
    """
    # safetensors has checked all of the header
    with safe_open(path, framework="pt"), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = orjson.loads(file.read(length))
    entries.pop("__metadata__", None)
    found = {}
    for name, one in entries.items():
        begin, end = (8 + length + at for at in one["data_offsets"])
        if (dtype := _BY_NAME.get(one["dtype"])) is not None:
            found[name] = Stored(begin, end, dtype, one["shape"])
    return found


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.itemsize


def _header(ordered: list[tuple[str, Tensor]]) -> bytes:
    entries, offset = {}, 0
    for name, tensor in ordered:
        end = offset + _bytes(tensor)
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = orjson.dumps(entries)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
