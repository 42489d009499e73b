"""A place for checkpoints, and the ranks that write into it together."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from megarc.errors import UserError, told_once
from megarc.parallel import Groups, gather_objects
from megarc.train.checkpoint import layout


@dataclass(frozen=True, slots=True)
class Level:
    """``folder`` is the same place for all of ``members`` (ranks of the world); the first makes it whole."""

    folder: Path
    members: tuple[int, ...]
    keep: int
    keep_every: int | None = None  # steps whose multiples stay for good

    @classmethod
    def shared(cls, folder: Path, groups: Groups, keep: int, keep_every: int | None = None) -> Level:
        """All ranks see this folder."""
        return cls(folder, tuple(range(groups.world.size)), keep, keep_every)

    @classmethod
    def local(cls, folder: Path, run: Path, groups: Groups) -> Level:
        """Each host's own disk: ranks of one host write together. Names of the environment are filled in.

        Two stay: a host may have been lost while it wrote the newest.

        Raises:
            UserError: on every rank, where one cannot make its folder.
        """
        place = (
            Path(os.path.expandvars(folder)) / f"{run.name}-{layout.digest_of_text(str(run.resolve()))[:8]}"
        )
        error = None
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            error = f"rank {groups.world.rank}: {problem}"
        told = gather_objects((error, socket.gethostname(), str(place)), groups.world)
        errors = [error for error, *_ in told if error]
        if errors:
            with told_once(groups.first):
                raise UserError(f"checkpoint.local {folder} cannot be made: {'; '.join(errors[:4])}")
        mine = told[groups.world.rank][1:]
        return cls(
            place, tuple(rank for rank, (_, *where) in enumerate(told) if tuple(where) == mine), keep=2
        )

    def publisher(self, rank: int) -> bool:
        """Whether ``rank`` makes folders whole here."""
        return rank == self.members[0]

    def prune(self) -> None:
        """Removes what need not stay: beyond the newest ``keep``, and no multiple of ``keep_every``."""
        for old in layout.finished(self.folder)[: -self.keep]:
            if self.keep_every and layout.step_of(old) % self.keep_every == 0:
                continue
            remove(old)

    def remove_beyond(self, step: int) -> None:
        """Removes the checkpoints of later steps."""
        for folder in layout.finished(self.folder):
            if layout.step_of(folder) > step:
                remove(folder)


def remove(folder: Path) -> None:
    """The manifest goes first: a folder that is half removed must not look finished."""
    (folder / layout.MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
