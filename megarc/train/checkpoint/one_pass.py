"""Reading a file once: while it is digested, its tensors go to where a rank wants them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from torch import Tensor

from megarc.parallel import Overlap, overlaps, size
from megarc.train.checkpoint.disk_blocks import read_blocks
from megarc.train.checkpoint.fragment_files import strided
from megarc.train.checkpoint.fragments import Fragment
from megarc.train.checkpoint.layout import Checkpoint, Placed
from megarc.train.checkpoint.tensor_file import Stored, stored_tensors

Read = tuple[str, str, str]  # a file, a parameter, "master", "exp_avg" and so on
_FILES_AT_ONCE = 2  # a thread digests each, another one copies


class OnePass:
    """Verifies files of a checkpoint, and fills what they have of fragments on the way.

    Where a digest does not fit, fragments hold what was read: whoever calls must give up.

    Args:
        stored: as ``Checkpoint.fragments`` gives it.
        parts: those of a fragment's state that are wanted; None: all.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        stored: dict[str, list[Placed]],
        fragments: list[Fragment],
        parts: Collection[str] | None,
    ) -> None:
        self.checkpoint, self.filled = checkpoint, set[Read]()
        self._wanted: dict[str, list[tuple[Placed, Fragment]]] = {}
        self._parts = parts
        for fragment in fragments:
            for source in stored.get(fragment.name, []):
                self._wanted.setdefault(source.file, []).append((source, fragment))

    def run(self, names: list[str], *, direct: bool) -> str | None:
        """Reads the files; the damaged one, or None.

        Args:
            direct: no other process of this host wants them.

        Raises:
            UserError: where the disk does not give one.
        """
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            digests = pool.map(lambda name: self._read(name, direct), names)
            damaged = [
                name
                for name, digest in zip(names, digests, strict=True)
                if not self.checkpoint.fits(name, digest)
            ]
        return damaged[0] if damaged else None

    def _read(self, name: str, direct: bool) -> str:
        path, digest = self.checkpoint.folder / name, hashlib.sha256()
        transfers = list(self._transfers(name))
        with self.checkpoint.reading(name), ThreadPoolExecutor(1) as digesting:
            for at, block in read_blocks(path, direct=direct):
                digested = digesting.submit(digest.update, memoryview(block.numpy()))
                for transfer in transfers:
                    transfer.take(at, block)
                digested.result()
        return digest.hexdigest()

    def _transfers(self, name: str) -> Iterator[Transfer]:
        """What of a file goes where. What looks wrong is left to whoever reads it afterwards, and says so."""
        try:
            tensors = stored_tensors(self.checkpoint.folder / name)
        except (OSError, SafetensorError):
            return
        for source, fragment in self._wanted.get(name, []):
            for part, target in fragment.state.items():
                there = tensors.get(f"{fragment.name}/{part}")
                if there is None or (self._parts is not None and part not in self._parts):
                    continue
                if there.shape == [size(source.boxes)]:
                    yield Transfer(there, target, list(overlaps(source.boxes, fragment.boxes)))
                    self.filled.add((name, fragment.name, part))


@dataclass(slots=True)
class Transfer:
    """A tensor of a file, on its way into ``target``, a 1-D tensor: as bytes, or, if in many runs, gathered first."""

    stored: Stored
    target: Tensor
    common: list[Overlap]
    _gathered: Tensor | None = field(default=None, init=False)

    def take(self, at: int, block: Tensor) -> None:
        """What the file's bytes from ``at`` on have of it."""
        first, last = max(at, self.stored.begin), min(at + block.numel(), self.stored.end)
        if first >= last or not self.common:
            return
        piece, begin = block[first - at : last - at], first - self.stored.begin
        if self.target.dtype == self.stored.dtype and all(map(_in_one_run, self.common)):
            for overlap in self.common:
                self._copy(piece, begin, overlap)
            return
        if self._gathered is None:
            self._gathered = torch.empty(self.stored.end - self.stored.begin, dtype=torch.uint8)
        self._gathered[begin : begin + piece.numel()] = piece
        if last == self.stored.end:
            self._scatter(self._gathered.view(self.stored.dtype))
            self._gathered = None

    def _copy(self, piece: Tensor, begin: int, common: Overlap) -> None:
        """What ``piece``, the tensor's bytes from ``begin`` on, has of a run."""
        width = self.target.itemsize
        source, target = common.source * width, common.target * width
        first = max(begin, source)
        last = min(begin + piece.numel(), source + common.rows * common.width * width)
        if first < last:
            into = self.target.view(torch.uint8)[first - source + target : last - source + target]
            into.copy_(piece[first - begin : last - begin])

    def _scatter(self, values: Tensor) -> None:
        for one in self.common:
            strided(self.target, one.target, one.target_pitch, one.rows, one.width).copy_(
                strided(values, one.source, one.source_pitch, one.rows, one.width)
            )


def _in_one_run(common: Overlap) -> bool:
    return common.rows == 1 or common.width == common.source_pitch == common.target_pitch
