"""A checkpoint folder on its way to another host's disk: it counts there once its digests were compared there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from megarc.atomic_write import cannot_write, sync_folder
from megarc.errors import UserError
from megarc.parallel import Channel, swap_words
from megarc.train.checkpoint import layout
from megarc.train.checkpoint.storage_level import make_room

CHUNK = 1 << 22  # bytes of one message
_ARRIVING = "arriving"  # no name of a checkpoint
_SPARE = 1 << 20  # bytes of the disk that a copy leaves
_NAME = re.compile(r"step-[0-9]{9,}|rank-[0-9]{5,9}\.(json|safetensors)|manifest\.json")


def pass_on(
    channel: Channel, folder: Path | None, to: int | None, place: Path, source: int | None
) -> tuple[Path | None, str]:
    """Sends ``folder`` to rank ``to`` and keeps in ``place`` what rank ``source`` sends, at the same time.

    All three partners call it: in a ring of hosts each sends to the next and hears from the one before.

    Args:
        folder: None: there is nothing to send, and the receiver is told so.
        to, source: None: to nobody, from nobody.

    Returns:
        The folder that has arrived whole, if one has, and what went wrong with it on its way, or "".
    """
    with ExitStack() as stack:
        files, problem = _opened(folder, stack)
        sizes = {name: _size(file) for name, file in files.items()}
        out = {"step": folder.name if folder and files else None, "sizes": sizes}
        announced = swap_words(channel, out, to, source)
        arriving = _Arriving.begun(place, announced) if source is not None else None
        wanted = swap_words(channel, arriving is not None and not arriving.problem, source, to)
        sending = _chunks(files, sizes) if wanted else iter(())
        expected = list(arriving.chunks()) if arriving is not None and not arriving.problem else []
        for number in range(max(_count(sizes) if wanted else 0, len(expected))):
            into = torch.empty(expected[number][1], dtype=torch.uint8) if number < len(expected) else None
            chunk = next(sending, None)
            channel.swap(chunk, None if chunk is None else to, into, None if into is None else source)
            if into is not None and arriving is not None:
                arriving.take(expected[number][0], into)
    if arriving is None:
        return None, problem
    return arriving.ended()


class _Arriving:
    """A folder that is being received; after a problem the rest is received and let go."""

    def __init__(self, place: Path, name: str, sizes: dict[str, int]) -> None:
        self.place, self.name, self.sizes = place, name, sizes
        self.folder, self.problem = place / _ARRIVING, ""
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            free, needed = shutil.disk_usage(self.folder).free, sum(sizes.values()) + _SPARE
            if free < needed:
                self.problem = f"{place} has {free / 2**20:.1f} MiB free, and {needed / 2**20:.1f} are needed"
        except OSError as error:
            self.problem = str(cannot_write(self.folder, error))

    @classmethod
    def begun(cls, place: Path, announced: dict[str, Any]) -> _Arriving | None:
        """None where nothing is sent."""
        if announced["step"] is None:
            return None
        one = cls(place, announced["step"], announced["sizes"])
        if not all(_NAME.fullmatch(name) for name in [one.name, *one.sizes]):
            one.problem = f"{one.name} with {sorted(one.sizes)[:4]} is not a checkpoint"
        return one

    def chunks(self) -> Iterator[tuple[str, int]]:
        """File and bytes of each message."""
        for name, size in self.sizes.items():
            for begin in range(0, size, CHUNK):
                yield name, min(CHUNK, size - begin)

    def take(self, name: str, chunk: Tensor) -> None:
        if self.problem:
            return
        try:
            with (self.folder / name).open("ab") as file:
                file.write(memoryview(chunk.numpy()))
        except OSError as error:
            self.problem = str(cannot_write(self.folder / name, error))

    def ended(self) -> tuple[Path | None, str]:
        """The folder under its own name, once what lies on this disk fits its digests."""
        if not self.problem:
            try:
                for path in self.folder.iterdir():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                layout.open_checkpoint(self.folder).check()
                final = self.place / self.name
                make_room(final)
                self.folder.rename(final)
                sync_folder(self.place)
                return final, ""
            except (OSError, UserError) as error:
                self.problem = str(error).split(";")[0]
        shutil.rmtree(self.folder, ignore_errors=True)
        return None, self.problem


def _opened(folder: Path | None, stack: ExitStack) -> tuple[dict[str, BinaryIO], str]:
    """The folder's files, of which none can be removed from under us any more; the manifest last."""
    if folder is None:
        return {}, ""
    try:
        names = [*layout.read_manifest(folder)["files"], layout.MANIFEST]
        return {name: stack.enter_context((folder / name).open("rb")) for name in names}, ""
    except (OSError, UserError) as error:
        return {}, str(error)


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _count(sizes: dict[str, int]) -> int:
    return sum(-(-size // CHUNK) for size in sizes.values())


def _chunks(files: dict[str, BinaryIO], sizes: dict[str, int]) -> Iterator[Tensor]:
    """As many bytes as were announced: the receiver waits for them, and its digests refuse what could not be read."""
    for name, file in files.items():
        for begin in range(0, sizes[name], CHUNK):
            content = bytearray(min(CHUNK, sizes[name] - begin))
            with suppress(OSError):
                file.seek(begin)
                file.readinto(content)  # type: ignore[attr-defined]
            yield torch.frombuffer(content, dtype=torch.uint8)
