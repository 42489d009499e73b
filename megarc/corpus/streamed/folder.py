"""The folder of a text's packed sections: who packs into it, what is whole, what went wrong.

FOLDER/00000003-0000-last.shard   a section's tokens and documents, there whole or not at all
FOLDER/lock                       held by the process that packs
FOLDER/failed.json                why it could not go on
FOLDER/dropped                    the fast engine once gave other ids here: FOLDER-plain is used from now on
FOLDER-plain/plain                where the plain library packs
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

import orjson

from megarc.atomic_write import cannot_write, written_atomically
from megarc.corpus.packing.shard import Shard
from megarc.errors import UserError


class SectionFolder:
    """Opened by readers and by the packer alike; made where it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error

    def shards(self, section: int) -> list[Shard] | None:
        """A section's shards; None: it is not whole yet."""
        found: list[Shard] = []
        while True:
            number = len(found)
            last = self.path / f"{section:08d}-{number:04d}-last.shard"
            if last.exists():
                return [*found, Shard(last)]
            more = self.path / f"{section:08d}-{number:04d}.shard"
            if not more.exists():
                return None
            found.append(Shard(more))

    def is_whole(self, section: int) -> bool:
        """Whether the last shard of a section is there: it is written last."""
        return any(self.path.glob(f"{section:08d}-*-last.shard"))

    def lock(self) -> BinaryIO | None:
        """The right to pack, until the file is closed here and in all that inherit it; None: another has it.

        Raises:
            UserError: where the folder cannot be written.
        """
        try:
            file = (self.path / "lock").open("ab")
        except OSError as error:  # another user's folder
            raise cannot_write(self.path / "lock", error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # a file system without locks: two packers write the same bytes
            pass
        return file

    @property
    def failure(self) -> str | None:
        """Why packing could not go on."""
        try:
            return str(orjson.loads((self.path / "failed.json").read_bytes())["error"])
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            return None

    def record_failure(self, error: UserError) -> None:
        """For all readers, whichever started the packer."""
        with written_atomically(self.path / "failed.json") as file:
            file.write(orjson.dumps({"error": str(error)}))

    def forget_failure(self) -> None:
        """Before another try."""
        (self.path / "failed.json").unlink(missing_ok=True)

    @property
    def plain(self) -> bool:
        """Whether the fast engine must not be used."""
        return (self.path / "plain").exists()

    @property
    def dropped(self) -> bool:
        """Whether the sections here are not used any more, but for what was read of them."""
        return (self.path / "dropped").exists()

    def drop(self) -> None:
        """The plain library packs every section anew, in another folder; these stay, for a run may be reading them."""
        SectionFolder(self._plainly).mark("plain")
        self.mark("dropped")

    def mark(self, name: str) -> None:
        (self.path / name).touch()

    def in_use(self) -> SectionFolder:
        """This folder, or the one in whose favour it was dropped."""
        return SectionFolder(self._plainly) if self.dropped else self

    @property
    def _plainly(self) -> Path:
        return self.path.with_name(f"{self.path.name}-plain")
