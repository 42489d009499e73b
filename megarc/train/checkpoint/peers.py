"""Copies of each host's local checkpoints on other hosts' disks: a host that is lost with its disk costs minutes.

Hosts stand in a ring. After each local save a thread of every host's first rank sends that checkpoint to the next hosts
and keeps what the hosts before send, under ``peers/rank-00004`` (the sender's first rank) in its own local folder. At a
resume, a host whose own checkpoint is missing or damaged is sent one by whoever has it.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from megarc.errors import UserError, reported_once
from megarc.parallel import Channel, Groups, SideChannel, gather_objects
from megarc.train.checkpoint import layout
from megarc.train.checkpoint.course import Course
from megarc.train.checkpoint.parcel import pass_on
from megarc.train.checkpoint.storage_level import Level
from megarc.train.checkpoint.write import Writing

log = logging.getLogger("megarc")

_FOLDER = "peers"
_KEEP = 2

Members = tuple[int, ...]


class Copy(NamedTuple):
    """A finished folder, and whose course it is of."""

    folder: str
    course: Course


Inventory = list[dict[int, dict[Members, list[Copy]]]]  # of each host: by step, by ranks


@dataclass
class Peers:
    """The ring of hosts; ``hosts[me]`` has this rank. All ranks call its methods together."""

    level: Level
    count: int
    groups: Groups
    hosts: list[Members]
    channel: Channel | None  # None: this rank is not its host's first
    sent: tuple[int, ...] = ()  # the last two steps that were copied: the second may still be on its way
    _thread: threading.Thread = field(default_factory=threading.Thread)

    @classmethod
    def of(cls, level: Level, count: int, groups: Groups) -> Peers:
        """Connects the first ranks of all hosts, before any engine is built.

        Raises:
            UserError: on every rank, where there are not enough hosts.
        """
        hosts = sorted(set(gather_objects(level.members, groups.world)))
        if count >= len(hosts):
            with reported_once(groups.first):
                raise UserError(
                    f"checkpoint.peers {count} needs {count + 1} hosts, and all ranks write their local checkpoints "
                    f"to {len(hosts)} ({level.folder}); use checkpoint.peers={len(hosts) - 1}, or more hosts"
                )
        first = [members[0] for members in hosts]
        channel = SideChannel(first) if groups.world.rank in first else None
        return cls(level, count, groups, hosts, channel)

    # ---- while the run trains

    def copy(self, writing: Writing) -> None:
        """Copies what ``writing`` writes, once it is whole; left out while the copy before it is on its way."""
        busy = gather_objects(self._thread.is_alive(), self.groups.world)
        if any(busy):
            if self.groups.first:
                log.warning(
                    f"{writing.folder.name} is not copied to other hosts: the copy before it is still on its way; "
                    "a larger checkpoint.local_every gives it time"
                )
            return
        self.sent = (*self.sent[-1:], layout.step_of(writing.folder))
        if self.channel is not None:
            self._thread = threading.Thread(target=self._copy, args=(writing,), name="peers", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Until the copies under way have arrived."""
        if self._thread.is_alive():
            self._thread.join()

    def _copy(self, writing: Writing) -> None:
        writing.thread.join()
        whole = writing.error is None and (writing.folder / layout.MANIFEST).exists()
        try:
            for distance in range(1, self.count + 1):
                self._pass_on(writing.folder if whole else None, distance)
        except Exception as error:  # a host that is gone, or a bug of ours: the run itself goes on or says so
            log.warning(f"{writing.folder.name} was not copied to other hosts: {error}")

    def _pass_on(self, folder: Path | None, distance: int) -> None:
        assert self.channel is not None
        to, source = (self.hosts[(self._me + way) % len(self.hosts)][0] for way in (distance, -distance))
        kept = self._kept(source)
        arrived, problem = pass_on(self.channel, folder, to, kept.folder, source)
        if problem:
            log.warning(f"the checkpoint of the host of rank {source} was not copied to this host: {problem}")
        if arrived is not None:
            try:
                kept.prune(layout.step_of(arrived))
                self._remove_others()
            except OSError as error:  # the hosts after this one wait for what this one sends them next
                log.warning(f"older copies of other hosts' checkpoints could not be removed: {error}")

    def _remove_others(self) -> None:
        """Copies of hosts from which none comes any more, since the run has other hosts now."""
        sources = {self._kept(self.hosts[(self._me - distance) % len(self.hosts)][0]).folder
                   for distance in range(1, self.count + 1)}  # fmt: skip
        for other in set((self.level.folder / _FOLDER).iterdir()) - sources:
            shutil.rmtree(other, ignore_errors=True)

    def remove_beyond(self, step: int) -> None:
        """Removes the copies of later steps from this rank's disk, if it is the one that keeps them."""
        if self.channel is not None:
            for place in self._places():
                Level(place, (), _KEEP).remove_beyond(step)

    # ---- when it resumes

    def inventory(self) -> Inventory:
        """What each host has; folders with a damaged manifest or of a newer megarc are left out."""
        found: dict[int, dict[Members, list[Copy]]] = {}
        if self.channel is not None:
            for place in (self.level.folder, *self._places()):
                for folder in layout.readable(layout.finished(place)):
                    ranks = _ranks(layout.read_manifest(folder)["files"])
                    found.setdefault(layout.step_of(folder), {}).setdefault(ranks, []).append(
                        Copy(str(folder), Course.of(folder))
                    )
        gathered = gather_objects(found, self.groups.world)
        return [gathered[members[0]] for members in self.hosts]

    @staticmethod
    def of_courses(inventory: Inventory, courses: Collection[Course]) -> Inventory:
        """Without what the run has left."""
        return [
            {
                step: {
                    ranks: kept
                    for ranks, copies in kinds.items()
                    if (kept := [copy for copy in copies if not copy.course.left_before(step, courses)])
                }
                for step, kinds in there.items()
            }
            for there in inventory
        ]

    def steps(self, inventory: Inventory) -> set[int]:
        """Of which the files of every host lie somewhere."""
        of = [
            {step for there in inventory for step, kinds in there.items() if members in kinds}
            for members in self.hosts
        ]
        return set.intersection(*of)

    def bring(self, step: int, lacking: Sequence[bool], inventory: Inventory) -> None:
        """Sends the checkpoint of ``step`` to each host that has a rank that lacks it, from who has a whole one."""
        for number, members in enumerate(self.hosts):
            if not any(lacking[rank] for rank in members):
                continue
            # Its own disk first: hosts may stand in another order than before.
            order = [number, *(other for other in range(len(self.hosts)) if other != number)]
            offers = [
                (holder, copy.folder)
                for holder in order
                for copy in inventory[holder].get(step, {}).get(members, [])
                if holder != number
                or Path(copy.folder).parents[1].name == _FOLDER  # what it lacks is its own
            ]
            for holder, folder in offers:
                if self._fetched(number, holder, Path(folder)):
                    break

    def _fetched(self, number: int, holder: int, folder: Path) -> bool:
        """Whether host ``number`` has it now."""
        arrived, problem = None, ""
        source, to = self.hosts[holder][0], self.hosts[number][0]
        mine = self.groups.world.rank
        if source == to == mine:
            arrived, problem = pass_on(_Loop(), folder, mine, self.level.folder, mine)
        elif self.channel is not None and mine == source:
            pass_on(self.channel, folder, to, self.level.folder, None)
        elif self.channel is not None and mine == to:
            arrived, problem = pass_on(self.channel, None, None, self.level.folder, source)
        if problem:
            log.warning(f"the copy {folder} on the host of rank {source} is not used: {problem}")
        if arrived is not None:
            log.info(f"{arrived} was brought back from {folder} on the host of rank {source}")
        return any(gather_objects(arrived is not None, self.groups.world))

    # ---- places

    @property
    def _me(self) -> int:
        return next(number for number, one in enumerate(self.hosts) if self.groups.world.rank in one)

    def _kept(self, source: int) -> Level:
        return Level(self.level.folder / _FOLDER / layout.rank_name(source), (), _KEEP)

    def _places(self) -> list[Path]:
        return sorted((self.level.folder / _FOLDER).glob("rank-*"))


class _Loop:
    """A channel of one rank to itself."""

    def swap(self, out: Tensor | None, to: int | None, into: Tensor | None, source: int | None) -> None:
        if out is not None and into is not None:
            into.copy_(out)


def _ranks(files: Iterable[str]) -> Members:
    """Who has written these files, of which a rank may have two pairs."""
    return tuple(sorted({layout.rank_of(name) for name in files}))
