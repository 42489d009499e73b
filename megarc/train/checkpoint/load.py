"""Loading: each rank reads the parts that it holds now, whoever wrote them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megarc.errors import UserError, reported_once
from megarc.parallel import Box, Group, broadcast_object, gather_objects, overlaps, size, whole
from megarc.train.checkpoint.course import Course
from megarc.train.checkpoint.fragments import STATE, held, set_steps
from megarc.train.checkpoint.layout import (
    Checkpoint,
    Placed,
    Standing,
    finished,
    instead_of,
    open_checkpoint,
    readable,
    step_folder,
    step_of,
)
from megarc.train.checkpoint.peers import Peers
from megarc.train.checkpoint.storage_level import Level
from megarc.train.engine import Engine
from megarc.train.engine.average import NAME as AVERAGE
from megarc.train.engine.places import refresh

log = logging.getLogger("megarc")


def load(
    checkpoint: Checkpoint, engine: Engine, level: Level | None = None, *, moments: bool = True
) -> Standing:
    """Fills the engine's masters, moments, counters and weights; all ranks together.

    Args:
        moments: false: they are 0, as those of a run that begins, and the optimizer has counted no step.
        level: where the checkpoint lies on the hosts' own disks, from ``newest_local``, which has verified
            it; None: all ranks see all of it.

    Raises:
        UserError: where a file is damaged, or the checkpoint is of another model.
    """
    world = engine.groups.world
    if level is None:
        _verify(checkpoint, world)
        stored = broadcast_object(checkpoint.fragments() if engine.groups.first else {}, world)
        _check_same_model(checkpoint, stored, engine)
    else:
        stored = checkpoint.fragments()
    with _Files(checkpoint) as files:
        for fragment in held(engine):
            for source in stored[fragment.name]:
                for part, target in fragment.state.items():
                    known = moments and files.has(source, fragment.name, part)
                    if part == AVERAGE and not known:  # it begins here
                        files.read(source, fragment.name, "master", target, fragment.boxes)
                    elif moments and not known:
                        raise UserError(
                            f"{checkpoint.folder} has no {part} of {fragment.name}: its run had another optimizer; "
                            "take its weights alone, with start_with.moments=false"
                        )
                    elif moments or part in ("master", STATE):
                        files.read(source, fragment.name, part, target, fragment.boxes)
                    else:
                        target.zero_()
    set_steps(engine, checkpoint.standing.updates if moments else 0)
    refresh(engine)
    return checkpoint.standing


def newest_local(
    level: Level, engine: Engine, shared: Checkpoint | None, peers: Peers | None = None
) -> Checkpoint | None:
    """The newest checkpoint beyond the shared one of which every host has what its ranks need now, undamaged.

    Steps that the run has left, since it once went on from before them, are not used (``Course``).

    Args:
        shared: the newest that all ranks see.
        peers: where there are copies on other hosts, a host that lacks its own is sent one first.
    """
    world = engine.groups.world
    own = {step_of(folder): Course.of(folder) for folder in readable(finished(level.folder))}
    inventory = peers.inventory() if peers is not None else []
    courses = {course for there in gather_objects(own, world) for course in there.values()}
    courses |= {copy.course for there in inventory for kinds in there.values() for copies in kinds.values()
                for copy in copies}  # fmt: skip
    above = 0
    if shared is not None:
        above = shared.standing.step
        courses.add(Course.of(shared.folder))
    steps = [step for step, course in own.items() if not course.left_before(step, courses)]
    common = set.intersection(*(set(steps) for steps in gather_objects(steps, world)))
    if peers is not None:
        inventory = peers.of_courses(inventory, courses)
        common |= peers.steps(inventory)
    if (left := max(own, default=0)) > max([above, *common]) and engine.groups.first:
        log.info(
            "step %d in %s is not used: other hosts lack it, or the run has resumed from an earlier step",
            left,
            level.folder,
        )
    for step in sorted(common, reverse=True):
        if step <= above:
            break
        found = _usable(level, step, engine, courses)
        usable = gather_objects(found is not None, world)
        if peers is not None and not all(usable):
            peers.bring(step, [not one for one in usable], inventory)
            found = _usable(level, step, engine, courses)
            usable = gather_objects(found is not None, world)
        if all(usable):
            return found
    return None


def _usable(level: Level, step: int, engine: Engine, courses: Collection[Course]) -> Checkpoint | None:
    """This host's checkpoint of a step, where the run has not left it, undamaged, with what this rank needs."""
    rank, members = engine.groups.world.rank, level.members
    try:
        found = open_checkpoint(step_folder(level.folder, step))
        if Course.of(found.folder).left_before(step, courses):
            return None
        damaged = found.verify(members.index(rank), len(members))
        return found if damaged is None and _covers(found, engine) else None
    except UserError:
        return None


def _verify(checkpoint: Checkpoint, world: Group) -> None:
    """Every file against its digest, each read by one rank."""
    damaged = [name for name in gather_objects(checkpoint.verify(world.rank, world.size), world) if name]
    if damaged:
        with reported_once(world.rank == 0):
            raise checkpoint.damage(damaged[0])


def _covers(checkpoint: Checkpoint, engine: Engine) -> bool:
    """Whether the folder holds every element that this rank needs."""
    stored = checkpoint.fragments()
    return all(
        size(fragment.boxes)
        == sum(
            common.rows * common.width
            for source in stored.get(fragment.name, [])
            for common in overlaps(source.boxes, fragment.boxes)
        )
        for fragment in held(engine)
    )


def full_masters(checkpoint: Checkpoint, *, average: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Each parameter's canonical name and full float32 values, 1-D; in memory one at a time.

    Args:
        average: their average along the run instead.

    Raises:
        UserError: where the run kept no average.
    """
    part = AVERAGE if average else "master"
    with _Files(checkpoint) as files:
        for name, parts in checkpoint.fragments().items():
            elements = torch.Size(parts[0].shape).numel()
            _check_covered(checkpoint, name, parts, elements)
            _check_disjoint(checkpoint, name, parts, elements)
            values = torch.empty(elements)
            for source in parts:
                if files.has(source, name, STATE):
                    files.read(source, name, STATE, values, whole(parts[0].shape))
                    continue
                if average and not files.has(source, name, part):
                    raise UserError(
                        f"{checkpoint.folder} has no average of weights: its run was trained without one. Train with "
                        "average.decay=0.999 (or average.last_k=100), which may also be given when a run is resumed"
                    )
                files.read(source, name, part, values, whole(parts[0].shape))
            yield name, values


class _Files(ExitStack):
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
            _strided(target, common.target, common.target_pitch, common.rows, common.width).copy_(
                _strided(read, 0, common.source_pitch, common.rows, common.width)
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


def _strided(flat: Tensor, offset: int, pitch: int, rows: int, width: int) -> Tensor:
    """``rows`` runs of ``width`` elements of a 1-D tensor, ``pitch`` apart, as [rows, width]."""
    return torch.as_strided(flat, (rows, width), (pitch, 1), flat.storage_offset() + offset)


def _check_same_model(checkpoint: Checkpoint, stored: dict[str, list[Placed]], engine: Engine) -> None:
    """The same parameters with the same full shapes, each covered exactly once."""
    listed = [*engine.parameters(), *engine.state()]
    own = {name: list(record.shape) for name, _, record in listed}
    ours = {
        name: shape for stage in gather_objects(own, engine.groups.pipeline) for name, shape in stage.items()
    }
    theirs = {name: parts[0].shape for name, parts in stored.items()}
    differences = [
        f"{name}: {theirs.get(name, 'absent')} there, {ours.get(name, 'absent')} here"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if differences:
        shown = "\n       ".join(differences[:8])
        raise UserError(f"{checkpoint.folder} is of another model:\n       {shown}")
    for name, parts in stored.items():
        _check_covered(checkpoint, name, parts, torch.Size(ours[name]).numel())


def _check_covered(checkpoint: Checkpoint, name: str, parts: list[Placed], elements: int) -> None:
    there = sum(size(part.boxes) for part in parts)
    if there != elements:
        raise UserError(
            f"{checkpoint.folder}: {name} has {there} elements on disk and {elements} in the model: "
            "the checkpoint is incomplete"
        )


def _check_disjoint(checkpoint: Checkpoint, name: str, parts: list[Placed], elements: int) -> None:
    """No element stands twice: another would stand nowhere."""
    shape = parts[0].shape if len(parts[0].shape) == 2 else [1, *parts[0].shape]
    seen = torch.zeros(shape, dtype=torch.bool)
    for box in (box for part in parts if part.shape == parts[0].shape for box in part.boxes):
        seen[box.top : box.bottom, box.left : box.right] = True
    if int(seen.sum()) != elements:
        raise UserError(
            f"{checkpoint.folder}: some elements of {name} are on disk twice and some not at all: the checkpoint is "
            f"damaged; {instead_of(checkpoint.folder)}"
        )
