"""A place for checkpoints, and the ranks that write into it together."""

from __future__ import annotations

import hashlib
import logging
import shutil
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from megarc.errors import UserError, reported_once
from megarc.parallel import Groups, gather_objects, together
from megarc.paths import user_path
from megarc.train.checkpoint import layout
from megarc.train.schedule import Interval

log = logging.getLogger("megarc")


@dataclass(frozen=True, slots=True)
class Level:
    """``folder`` is the same place for all of ``members`` (ranks of the world); the first makes it whole."""

    folder: Path
    members: tuple[int, ...]
    keep: int
    keep_every: Interval | None = None  # the first at or beyond each multiple of this stays for good

    @classmethod
    def shared(cls, folder: Path, groups: Groups, keep: int, keep_every: Interval | None = None) -> Level:
        """All ranks see this folder."""
        return cls(folder, tuple(range(groups.world.size)), keep, keep_every)

    @classmethod
    def local(cls, folder: Path, run: Path, identity: str, groups: Groups) -> Level:
        """Each host's own disk: ranks of one host write together. Names of the environment are filled in.

        Two stay: a host may have been lost while it wrote the newest.

        Args:
            run: the run folder.
            identity: which run it is: another one that lay in this folder before has a place of its own.

        Raises:
            UserError: on every rank, where one cannot make its folder.
        """
        # On this host: another may have another disk. The key itself is not filled in before.
        disk = together(lambda: user_path(folder), groups.world)
        of_run = hashlib.sha256(f"{run.resolve()}\n{identity}".encode()).hexdigest()
        place = disk / f"{run.name}-{of_run[:8]}"
        error = None
        try:
            place.mkdir(parents=True, exist_ok=True)
            others = sorted(other.name for other in disk.glob(f"{run.name}-????????") if other != place)
            if others and groups.first:
                log.info("%s also holds checkpoints of other runs of this name (%s); they are not used. "
                         "Remove them once those runs are done", disk, ", ".join(others[:4]))  # fmt: skip
        except OSError as problem:
            error = f"rank {groups.world.rank}: {problem}"
        gathered = gather_objects((error, socket.gethostname(), str(place)), groups.world)
        errors = [error for error, *_ in gathered if error]
        if errors:
            with reported_once(groups.first):
                raise UserError(f"checkpoint.local {folder} cannot be made: {'; '.join(errors[:4])}")
        mine = gathered[groups.world.rank][1:]
        return cls(
            place, tuple(rank for rank, (_, *where) in enumerate(gathered) if tuple(where) == mine), keep=2
        )

    def publisher(self, rank: int) -> bool:
        """Whether ``rank`` makes folders whole here."""
        return rank == self.members[0]

    def prune(self, newest: int | None = None, spared: Collection[int] = ()) -> None:
        """Removes what need not stay: beyond the newest ``keep``, and not the first at a multiple of ``keep_every``.

        A damaged manifest's folder is neither counted nor removed, nor one that a newer megarc wrote.

        Args:
            newest: the step that was just saved. Later ones, from before the run went on from an earlier checkpoint,
                are neither counted nor removed: else the one just saved would be.
            spared: steps that stay, too.
        """
        counted = [folder for folder in layout.readable(layout.finished(self.folder))
                   if newest is None or layout.step_of(folder) <= newest]  # fmt: skip
        standings = [layout.Checkpoint(old, layout.read_manifest(old)).standing for old in counted]
        for place in superfluous([(one.step, one.samples) for one in standings], self.keep, self.keep_every):
            if standings[place].step not in spared:
                remove(counted[place])

    def remove_beyond(self, step: int) -> None:
        """Removes the checkpoints of later steps; a damaged one is set aside."""
        for folder in layout.finished(self.folder):
            if layout.step_of(folder) > step:
                make_room(folder)


def superfluous(standings: Sequence[tuple[int, int]], keep: int, keep_every: Interval | None) -> list[int]:
    """Which of the checkpoints of (steps, samples) ``standings``, the oldest first, need not stay.

    The newest ``keep`` stay, and the first at or beyond each multiple of ``keep_every``.
    """
    found, before = [], (0, 0)
    for place, now in enumerate(standings[:-keep]):
        if keep_every is not None and keep_every.between(before, now):
            before = now
        else:
            found.append(place)
    return found


def make_room(folder: Path) -> None:
    """Removes what stands in a checkpoint's place: an unfinished save, or one that did not happen after all.

    A finished one that is damaged is renamed: somebody may still want its other files.
    """
    if (folder / layout.MANIFEST).exists() and not layout.undamaged([folder]):
        aside = layout.aside(folder)
        folder.rename(aside)
        log.warning("%s is damaged; it was moved to %s", folder, aside)
    elif folder.exists():
        remove(folder)


def remove(folder: Path) -> None:
    """The manifest goes first: a folder that is half removed must not look finished."""
    (folder / layout.MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
