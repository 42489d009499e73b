"""Loading: each rank reads the parts that it holds now, whoever wrote them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from megarc.errors import UserError
from megarc.parallel import broadcast_object, gather_objects, overlaps, size, together, whole
from megarc.train.checkpoint.course import Course
from megarc.train.checkpoint.fragment_files import FragmentFiles
from megarc.train.checkpoint.fragments import STATE, Fragment, held, set_steps
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
from megarc.train.checkpoint.one_pass import OnePass, Read
from megarc.train.checkpoint.peers import Peers
from megarc.train.checkpoint.storage_level import Level
from megarc.train.engine import Engine
from megarc.train.engine.average import NAME as AVERAGE
from megarc.train.engine.places import refresh

log = logging.getLogger("megarc")

_WITHOUT_MOMENTS = ("master", STATE)  # what is loaded where moments are not


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
    fragments = held(engine)
    if level is None:
        stored, filled = _verified(checkpoint, engine, fragments, moments)
    else:
        stored, filled = checkpoint.fragments(), set()
    with FragmentFiles(checkpoint) as files:
        for fragment in fragments:
            for source in stored[fragment.name]:
                for part, target in fragment.state.items():
                    if (source.file, fragment.name, part) in filled:
                        continue
                    known = moments and files.has(source, fragment.name, part)
                    if part == AVERAGE and not known:  # it begins here
                        files.read(source, fragment.name, "master", target, fragment.boxes)
                    elif moments and not known:
                        raise UserError(
                            f"{checkpoint.folder} has no {part} of {fragment.name}: its run had another optimizer; "
                            "take its weights alone, with start_with.moments=false"
                        )
                    elif moments or part in _WITHOUT_MOMENTS:
                        files.read(source, fragment.name, part, target, fragment.boxes)
                    else:
                        target.zero_()
    set_steps(engine, checkpoint.standing.updates if moments else 0)
    refresh(engine)
    return checkpoint.standing


def _verified(
    checkpoint: Checkpoint, engine: Engine, fragments: list[Fragment], moments: bool
) -> tuple[dict[str, list[Placed]], set[Read]]:
    """Every file against its digest, each read by one rank; what it holds of this rank's fragments is filled.

    Returns:
        What is stored, and what of it is filled.
    """
    world = engine.groups.world
    own = checkpoint.share(world.rank, world.size)
    lists = [name for name in own if name.endswith(".json")]
    together(lambda: _refuse_damaged(checkpoint, checkpoint.verify(lists)), world)
    listed = together(lambda: checkpoint.fragments() if engine.groups.first else {}, world)
    stored = broadcast_object(listed, world)
    _check_same_model(checkpoint, stored, engine)
    one_pass = OnePass(checkpoint, stored, fragments, None if moments else _WITHOUT_MOMENTS)
    # With ZeRO 0 other ranks want the same file: the first to read it brings it into the page cache.
    alone = world.size == 1 or engine.config.parallel.zero > 0
    tensors = [name for name in own if name not in lists]
    together(lambda: _refuse_damaged(checkpoint, one_pass.run(tensors, direct=alone)), world)
    return stored, one_pass.filled


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
        damaged = found.verify(found.share(members.index(rank), len(members)))
        return found if damaged is None and _covers(found, engine) else None
    except UserError:
        return None


def _refuse_damaged(checkpoint: Checkpoint, damaged: str | None) -> None:
    """Raises what is wrong with the file ``damaged``, where there is one."""
    if damaged is not None:
        raise checkpoint.damage(damaged)


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
    with FragmentFiles(checkpoint) as files:
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
