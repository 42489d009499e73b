"""Where a run resumes: the newest checkpoint of any level, or an earlier one."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace

from megarc.config import differences, to_dict
from megarc.data import Gaps, Stream
from megarc.errors import UserError, reported_once
from megarc.parallel import broadcast_object, gather_objects
from megarc.train.checkpoint.course import Course
from megarc.train.checkpoint.layout import Checkpoint, latest
from megarc.train.checkpoint.load import load, newest_local
from megarc.train.checkpoint.peers import Peers
from megarc.train.checkpoint.start_from import begin_from
from megarc.train.checkpoint.storage_level import Level
from megarc.train.checkpoint.trained_model import run_config
from megarc.train.config import RunConfig
from megarc.train.engine import Engine
from megarc.train.health import BadSteps, Diverged, Running
from megarc.train.run_position import Standing
from megarc.train.schedule import BatchSchedule, Timeline

log = logging.getLogger("megarc")

_JUMP = 1.1  # a learning rate that changes by more at a resume is named


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where the run stands, whether the shared level holds this very state, and which of the run's starts wrote it."""

    standing: Standing
    shared: bool
    start: int = 0


def resume(engine: Engine, levels: list[Level], stream: Stream, peers: Peers | None = None) -> Resumed:
    """Loads the newest whole checkpoint; where there is none, the run stands at its start.

    Of the checkpoints of one step, a host's own comes first, then its copy on another host, then the shared one.

    Raises:
        UserError: where it is damaged, or of other data or another model.
    """
    shared, *local = levels
    newest = _on_rank_0(engine, shared, None)
    for level in local:
        found = newest_local(level, engine, newest, peers)
        if found is not None:
            _check_same_data(found, stream)
            if engine.groups.first:
                log.info("step %d lies on the hosts' own disks, in %s", found.standing.step, level.folder)
                _say_jump(found, engine.config)
            return Resumed(load(found, engine, level), False, Course.told(found.manifest).start)
    if newest is None:
        if engine.config.start_from is not None:
            return Resumed(begin_from(engine.config.start_from, engine, stream), shared=False)
        fresh = Standing(0, 0, order=stream.order, sources=stream.digests, tokenizer=stream.tokenizer_digest)
        return Resumed(fresh, shared=False)
    _check_same_data(newest, stream)
    if engine.groups.first:
        _say_jump(newest, engine.config)
    return Resumed(load(newest, engine), True, Course.told(newest.manifest).start)


def _say_jump(found: Checkpoint, config: RunConfig) -> None:
    """Warns where today's keys give the next step another learning rate than those the run had until now."""
    step = found.standing.step
    try:
        earlier = run_config(found)
        before = Timeline.of(earlier, found.standing).learning_rate(step)
    except UserError:
        return  # keys of an earlier megarc
    after = Timeline.of(config, found.standing).learning_rate(step)
    if max(before, after) <= _JUMP * min(before, after):
        return
    changed = [
        f"{name} {old} -> {new}"
        for name, old, new in differences(to_dict(earlier), to_dict(config))
        if name.split(".")[0] in ("length", "schedule", "optimizer", "batch")
    ]
    log.warning(
        "the learning rate jumps from %.3g to %.3g at step %d, because keys changed (%s). A run that may be made "
        "longer later wants schedule.kind=wsd, whose rate stays until the decay",
        before, after, step + 1, ", ".join(changed),
    )  # fmt: skip


def go_back(
    engine: Engine,
    levels: list[Level],
    bad: BadSteps,
    gaps: Gaps,
    batches: BatchSchedule,
    peers: Peers | None = None,
) -> Standing:
    """Loads the last checkpoint before the bad steps; their samples are left out from now on.

    Later checkpoints are removed: they stand for a run that did not happen.

    Raises:
        UserError: where there is no such checkpoint.
    """
    shared = levels[0]
    before = _on_rank_0(engine, shared, bad.first - 1)
    first, count = bad.samples(batches)
    if before is None:
        with reported_once(engine.groups.first):
            raise Diverged(
                f"steps {bad.first} to {bad.last} were bad: {bad.why}; and {shared.folder} has no checkpoint "
                "before them to go back to. Start again in another folder, with a smaller checkpoint.every or "
                "optimizer.lr"
            )
    standing = load(before, engine)
    for level in levels:
        if level.publisher(engine.groups.world.rank):
            level.remove_beyond(standing.step)
    if peers is not None:
        peers.remove_beyond(standing.step)
    gather_objects(None, engine.groups.world)  # nobody saves before that is done
    left_out = gaps.and_also(first, count)
    if engine.groups.first:
        log.warning(
            "returns to step %d; the samples of steps %d to %d are skipped permanently: %s",
            standing.step, bad.first, bad.last, gaps.runs(first, count),
        )  # fmt: skip
    running = Running(**standing.losses)
    backs = replace(running, backs=max(running.backs, bad.backs) + 1)
    return replace(standing, skipped=[list(one) for one in left_out.ranges], losses=asdict(backs))


def _on_rank_0(engine: Engine, level: Level, at_most: int | None) -> Checkpoint | None:
    """The newest checkpoint that rank 0 sees; its complaint reaches every rank."""
    found, error = None, None
    if engine.groups.first:
        try:
            found = latest(level.folder, at_most)
        except UserError as problem:
            error = str(problem)
    found, error = broadcast_object((found, error), engine.groups.world)
    if error:
        with reported_once(engine.groups.first):
            raise UserError(error)
    return found


def _check_same_data(found: Checkpoint, stream: Stream) -> None:
    """The run's own data, of which sample k is still the same."""
    there, here = found.standing.sources, list(stream.digests)
    if there != here:
        raise UserError(
            f"{found.folder} was trained on other data: its sources have digests {there}, "
            f"the run's now {here}; bring the old corpora back, or train on in another folder, "
            f"with start_from={found.folder}"
        )
    if found.standing.order and found.standing.order != stream.order:
        raise UserError(
            f"{found.folder} has read the same sources in another order (of another seed, blend or window, or by "
            f"another megarc); train on in another folder, with start_from={found.folder}"
        )
    if not found.standing.order and stream.reordered:
        log.warning(
            "%s was saved by an earlier megarc, which shuffled small sources in another order: %s go on in the new one",
            found.folder, ", ".join(stream.reordered),
        )  # fmt: skip
