"""The fragments of a checkpoint, read from its files by memory map."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megarc.errors import UserError
from megarc.parallel import Box, overlaps
from megarc.train.checkpoint.layout import Checkpoint, Placed, instead_of


class FragmentFiles(ExitStack):
    """The tensors' files of a checkpoint, each opened once, by memory map."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.folder = checkpoint.folder
        self.opened: dict[str, Any] = {}
        self.names: dict[str, set[str]] = {}

    def read(self, source: Placed, name: str, part: str, target: Tensor, boxes: list[Box]) -> None:
        """Copies what ``source`` has of ``boxes`` into ``target``, a 1-D tensor that holds these boxes."""
        for common in overlaps(source.boxes, boxes):
            span = (common.rows - 1) * common.source_pitch + common.width
            try:
                read = self._file(source.file).get_slice(f"{name}/{part}")[
                    common.source : common.source + span
                ]
            except SafetensorError as error:
                raise self._unreadable(source.file, f"{name}/{part}", error) from None
            if read.shape != (span,):
                raise self._unreadable(source.file, f"{name}/{part}", f"its shape is {list(read.shape)}")
            strided(target, common.target, common.target_pitch, common.rows, common.width).copy_(
                strided(read, 0, common.source_pitch, common.rows, common.width)
            )

    def has(self, source: Placed, name: str, part: str) -> bool:
        """Whether ``source``'s file holds this part of the parameter's state."""
        file = self._file(source.file)
        if source.file not in self.names:
            self.names[source.file] = set(file.keys())
        return f"{name}/{part}" in self.names[source.file]

    def _file(self, name: str) -> Any:
        if name not in self.opened:
            try:
                self.opened[name] = self.enter_context(safe_open(self.folder / name, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise self._unreadable(name, "it", error) from None
        return self.opened[name]

    def _unreadable(self, file: str, what: str, why: object) -> UserError:
        return UserError(f"{self.folder / file}: {what} cannot be read: {why}; {instead_of(self.folder)}")


def strided(flat: Tensor, offset: int, pitch: int, rows: int, width: int) -> Tensor:
    """``rows`` runs of ``width`` elements of a 1-D tensor, ``pitch`` apart, as [rows, width]."""
    return torch.as_strided(flat, (rows, width), (pitch, 1), flat.storage_offset() + offset)
