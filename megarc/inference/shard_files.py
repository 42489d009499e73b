"""The safetensors files of one model: one, or several with an index; written in any order, read by name."""

from __future__ import annotations

import json
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megarc.errors import UserError

INDEX = "model.safetensors.index.json"
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_ONE = "model.safetensors"
_LONGEST = 100  # characters of a file's name


@dataclass(frozen=True, slots=True)
class Shard:
    """One file: its name, and its tensors' names and shapes in their order."""

    name: str
    tensors: list[tuple[str, tuple[int, ...]]]
    size: int

    def begin(self, file: BinaryIO, dtype: torch.dtype) -> dict[str, int]:
        """Writes safetensors' header and makes room for the data, all 0; where each tensor begins in the file."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, shape in self.tensors:
            begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
            header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)
        data = 8 + len(encoded)
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.truncate(data + end)
        return {name: data + header[name]["data_offsets"][0] for name, _ in self.tensors}


def planned(
    described: list[tuple[str, tuple[int, ...]]], dtype: torch.dtype, largest: int | None
) -> list[Shard]:
    """Tensors in their order over files of at most ``largest`` bytes; one larger tensor has a file of its own."""
    parts: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    sizes = [0]
    for name, shape in described:
        size = torch.Size(shape).numel() * dtype.itemsize
        if largest is not None and parts[-1] and sizes[-1] + size > largest:
            parts.append([])
            sizes.append(0)
        parts[-1].append((name, shape))
        sizes[-1] += size
    names = [f"model-{number + 1:05d}-of-{len(parts):05d}.safetensors" for number in range(len(parts))]
    return [
        Shard(name, part, size)
        for name, part, size in zip(names if len(parts) > 1 else [_ONE], parts, sizes, strict=True)
    ]


class ShardFiles(ExitStack):
    """The safetensors files of a folder, by memory map.

    Raises:
        UserError: where there are none, or one that the index names is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._opened: dict[str, Any] = {}
        index = folder / INDEX
        if index.exists():
            self.place = _read_index(index)
        elif (folder / _ONE).exists():
            self.place = dict.fromkeys(self._open(_ONE).keys(), _ONE)
        else:
            pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
            why = (
                "; its weights are pickled, and megarc executes nothing: save them as safetensors"
                if pickled
                else ""
            )
            raise UserError(f"{folder} has no {_ONE} and no {INDEX}{why}")

    def shape(self, name: str) -> tuple[tuple[int, ...], str]:
        """A tensor's shape and type, without reading it."""
        try:
            part = self._open(self.place[name]).get_slice(name)
        except SafetensorError as error:
            raise self._unreadable(name, error) from None
        return tuple(part.get_shape()), str(part.get_dtype())

    def read(self, name: str) -> Tensor:
        """One tensor, of its own type."""
        if name not in self.place:
            raise UserError(f"{self.folder} has no tensor {name}")
        try:
            found: Tensor = self._open(self.place[name]).get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise self._unreadable(name, error) from None
        return found

    def _unreadable(self, name: str, error: Exception) -> UserError:
        return UserError(f"{self.folder / self.place[name]}: {name} cannot be read: {error}")

    def _open(self, name: str) -> Any:
        if name not in self._opened:
            try:
                self._opened[name] = self.enter_context(safe_open(self.folder / name, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise UserError(f"{self.folder / name} is damaged or no safetensors file: {error}") from None
        return self._opened[name]


def _read_index(index: Path) -> dict[str, str]:
    try:
        place = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{index} cannot be read: {error!r}") from None
    if wrong := [name for name in place.values() if not isinstance(name, str)]:
        raise UserError(f"{index} cannot be read: weight_map names the file {wrong[0]!r}, which is not text")
    for name in sorted(set(place.values())):
        if Path(name).name != name or "\0" in name or len(name) > _LONGEST:
            raise UserError(
                f"{index} names the file {name[:_LONGEST]!r}, which is not a file of its folder; use another copy"
            )
        if not (index.parent / name).exists():
            raise UserError(f"{index.parent / name} is missing, which {index.name} names; bring it back")
    return place
