"""The door of the room: one run, from a configuration to a finished folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from megarc.attention import resolve as choose_attention
from megarc.config import digest_of
from megarc.data import Maker, Stream, Task, open_stream, read_task
from megarc.errors import UserError
from megarc.model import check_recurrence_kernels, cost_of
from megarc.parallel import Groups, agree, broadcast_object, together
from megarc.progress import human
from megarc.train.checkpoint import (
    Due,
    Level,
    Peers,
    Restored,
    Standing,
    StoreCopies,
    StoreCopy,
    restore,
    resume,
)
from megarc.train.config import CheckpointConfig, RunConfig
from megarc.train.dry_step import Explain, dry_step, memory_errors_explained
from megarc.train.engine import build_engine, dtype_of
from megarc.train.exit_report import failure_logged, how_it_ended
from megarc.train.folder import RunFolder, hold, keep_tokenizer, tokenizer_of_corpora
from megarc.train.health import Signals, alarmed, clear, watched
from megarc.train.health.fault_injection import arm
from megarc.train.heartbeat import Heartbeat
from megarc.train.loop import Ending, Observer
from megarc.train.resolve_config import resolve
from megarc.train.schedule import Lengths, Timeline
from megarc.train.self_check import self_check
from megarc.train.trainer import Trainer

log = logging.getLogger("megarc")


def pretrain(
    config: RunConfig,
    groups: Groups,
    makers: Mapping[str, Maker] | None = None,
    explain: Explain | None = None,
    watch: Sequence[Observer] = (),
) -> Ending:
    """Trains from the newest checkpoint of ``config.folder``, or from the start, to ``config.length``.

    All ranks call it together.

    Args:
        makers: sources beyond corpora, by the ``kind`` under which ``data`` names them.
        explain: makes the table of where memory goes, should it not be enough.
        watch: observers beside the run's own.

    Returns:
        Whether it finished, or a signal ended it with its state saved.

    Raises:
        UserError: for everything that a user can put right.
    """
    config, stream, heldout, timeline = together(lambda: _opened(config, groups, makers or {}), groups.world)
    tasks = together(lambda: open_tasks(config), groups.world)
    agree({"configuration": digest_of(config), "data": ", ".join(stream.digests)}, groups.world)
    folder = RunFolder(config.folder, hook=config.logging.notify)
    signals, heartbeat = Signals(), Heartbeat()
    with ExitStack() as stack:
        stack.enter_context(signals.caught())
        copy = _enter(stack, folder, config, groups, stream, heartbeat)
        stack.enter_context(_watched(folder, config, groups, heartbeat, timeline.total))
        stack.enter_context(memory_errors_explained(config, groups, heartbeat, folder, explain))
        levels = _levels(config.checkpoint, timeline, folder, groups)
        peers = _peers(config.checkpoint, levels, groups)
        heartbeat.enter("self-check")
        self_check(config, groups, folder.path)
        heartbeat.enter("building")
        engine = build_engine(config, groups, heartbeat)
        stack.callback(engine.close)
        arm(engine)
        heartbeat.enter("loading")
        resumed = resume(engine, [due.level for due in levels], stream, peers)
        stream = stream.in_phase(resumed.standing.phase)
        timeline = Timeline.of(config, resumed.standing)
        _announce(config, groups, stream, timeline, resumed.standing)
        if config.health.dry_step and resumed.standing.step < timeline.total:
            dry_step(engine, stream)
        copies = StoreCopies(copy, config.checkpoint.store_on_error)
        # A checkpoint that came from a store may be of a later start than this folder has seen.
        number = broadcast_object(max(folder.starts, resumed.start + 1) if groups.first else 0, groups.world)
        trainer = Trainer(
            config, engine, stream, heldout, tasks, folder, levels, signals, [copies, *watch], number, peers
        )
        ending = trainer.fit(resumed)
        if groups.first:
            log.info(how_it_ended(ending, config, timeline.last))
        return ending


def _levels(keys: CheckpointConfig, timeline: Timeline, folder: RunFolder, groups: Groups) -> list[Due]:
    """The shared checkpoints first, then the hosts' own where they are asked for."""
    shared = Level.shared(folder.checkpoints, groups, keys.keep, timeline.kept_for_good)
    levels = [Due(shared, timeline.checkpoint)]
    if keys.local is not None and timeline.local_checkpoint is not None:
        run = broadcast_object(folder.run if groups.first else "", groups.world)
        levels.append(Due(Level.local(keys.local, folder.path, run, groups), timeline.local_checkpoint))
    return levels


def _peers(keys: CheckpointConfig, levels: list[Due], groups: Groups) -> Peers | None:
    """The hosts to which local checkpoints are copied, where that is asked for."""
    return Peers.of(levels[1].level, keys.peers, groups) if keys.peers and len(levels) > 1 else None


def _opened(
    config: RunConfig, groups: Groups, makers: Mapping[str, Maker]
) -> tuple[RunConfig, Stream, Stream | None, Timeline]:
    """The resolved configuration, the training stream, the held-out one, and the timeline from the start."""
    stream = open_train(config, makers)
    heldout = open_heldout(config, makers) if config.data.valid else None
    if heldout is not None:
        heldout.check_same_tokenizer(stream)
    if stream.placed and groups.topology.pipeline > 1:
        raise UserError(
            "data.train gives each row a position, which does not flow through a pipeline; "
            "use positions: rows there, or parallel.pipeline=1"
        )
    timeline = Timeline.of(config)  # what is wrong with lengths is said before anything is built
    return resolve(config, stream, groups.topology), stream, heldout, timeline


def open_train(config: RunConfig, makers: Mapping[str, Maker] | None = None) -> Stream:
    """The training samples of the run, each with its window and with what is hidden in R.

    Raises:
        UserError: as ``open_stream``.
    """
    lengths = Lengths(config)
    return open_stream(
        config.data,
        "train",
        config.window.build(),
        config.seed,
        makers=makers,
        shapes=lengths.shapes,
        hide=config.objective.recent,
        blends=lengths.blends(config.data.blend_stages),
    )


def open_tasks(config: RunConfig) -> list[Task]:
    """The tasks of ``validation.tasks``, as ids.

    Raises:
        UserError: where one is wrong, two share a name, or the tokenizer of the run's text is not found.
    """
    paths = config.validation.tasks
    if not paths:
        return []
    tokenizer = tokenizer_of_corpora(config.data)
    if tokenizer is None:
        raise UserError(
            "validation.tasks: the tokenizer of data.train is not known, or does not lie beside its corpora; copy "
            "it there, or leave the tasks out"
        )
    start = None if tokenizer.end is None else tokenizer.end.id
    tasks = [read_task(path, tokenizer, start) for path in paths]
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError("validation.tasks: two files have one name, and so would their metrics; rename one")
    return tasks


def open_heldout(config: RunConfig, makers: Mapping[str, Maker] | None = None) -> Stream:
    """The held-out samples, each window once."""
    window, shapes = config.window.build(), Lengths(config).shapes
    return open_stream(config.data, "valid", window, config.seed, makers=makers, shapes=shapes)


def _enter(
    stack: ExitStack,
    folder: RunFolder,
    config: RunConfig,
    groups: Groups,
    stream: Stream,
    heartbeat: Heartbeat,
) -> StoreCopy | None:
    """Rank 0 takes the folder for all; then each rank sees that it is there, and keeps its log in it.

    Returns:
        What copies the folder to a store: on rank 0, where that is asked for.
    """
    facts = {"ranks": groups.world.size, "sources": list(stream.digests)}
    copy = together(
        lambda: _take(stack, folder, config, facts, heartbeat) if groups.first else None, groups.world
    )
    together(lambda: folder.seen_by(groups.world.rank), groups.world)
    stack.enter_context(folder.logged(logging.getLogger(), folder.log_of(groups.world.rank)))
    return copy


def _take(
    stack: ExitStack, folder: RunFolder, config: RunConfig, facts: dict[str, Any], heartbeat: Heartbeat
) -> StoreCopy | None:
    copy, keys = None, config.checkpoint
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        taken_over = stack.enter_context(hold(folder.lock))
        if taken_over:
            log.warning(taken_over)
        restored = Restored() if keys.store is None else restore(keys.store, folder)
        folder.enter(config, facts)
        clear(folder.ranks)
        stack.enter_context(folder.logged(log, folder.log))
        restored.say()
        keep_tokenizer(config.data, folder.tokenizer, config.start_from)
        if keys.store is not None:  # it ends after the run's last words are written
            kept_for_good = Timeline.of(config).kept_for_good
            copy = stack.enter_context(
                StoreCopy(keys.store, folder, keys.keep, kept_for_good, list(restored.damaged)).running()
            )

        def where() -> str:
            return f"step {heartbeat.step}, {heartbeat.phase}"

        stack.enter_context(failure_logged(folder, where))
        stack.enter_context(folder.failures_recorded(where, known=lambda: alarmed(folder.ranks)))
        return copy
    except OSError as problem:
        raise UserError(f"the run folder {folder.path} cannot be made: {problem}") from None


def _watched(
    folder: RunFolder, config: RunConfig, groups: Groups, heartbeat: Heartbeat, total: int
) -> AbstractContextManager[None]:
    def tell(headline: str, blamed: list[int]) -> None:
        folder.record_failure(headline, reason="hang", culprits=blamed, step=heartbeat.step, total=total)

    return watched(heartbeat, folder.ranks, groups.world, config.health.patience, tell)


def _announce(
    config: RunConfig, groups: Groups, stream: Stream, timeline: Timeline, standing: Standing
) -> None:
    if not groups.first:
        return
    shapes, batches = timeline.shapes, timeline.batches
    total, size = timeline.total, batches.size(standing.step)
    samples = batches.samples_before(total)
    cost = cost_of(config.model, shapes.own)
    active = f"{human(cost.active_parameters)} of them active, " if cost.unused_parameters else ""
    sizes = (
        f"{human(cost.parameters)} parameters ({active}{human(cost.embedding_parameters)} of them embeddings)"
    )
    predicted = human(timeline.predicted_tokens(samples))
    processed = human(timeline.processed_tokens(samples))
    begin = batches.samples_before(standing.step)
    step = (
        f"{human(shapes.predicted(begin + size) - shapes.predicted(begin))} predicted, "
        f"{human(shapes.processed(begin + size) - shapes.processed(begin))} processed tokens a step"
    )
    log.info(f"window {shapes}; {sizes}, vocabulary {config.model.tokens}")
    log.info(f"{total} steps of {batches}: {predicted} predicted, {processed} processed tokens; {step}")
    log.info(f"{groups.world.size} ranks, ZeRO {config.parallel.zero}, {config.precision}, {groups.device}")
    if {"attention", "ssm_attention"} & set(config.model.mixers):
        choose_attention(
            config.execution.attention, groups.device, dtype_of(config), config.model.width_of_head,
            fewer_rows=config.parallel.context > 1,
        )  # fmt: skip
    if config.execution.recurrence == "fla" and {"ssm", "ssm_attention"} & set(config.model.mixers):
        check_recurrence_kernels(groups.device)
    for line in stream.describe(samples - standing.begin):
        log.info(line)
    if config.data.packs:
        first = stream.read(max(0, begin - standing.begin), min(size, 64))
        loss_rows = 0 if first.weights is None else int((first.weights > 0).sum())
        log.info(
            f"packed rows predict {loss_rows / len(first.tokens):.4g} tokens each on average (of the first "
            f"{len(first.tokens)} rows); predicted tokens and lengths in tokens count {shapes.own.stride} a row"
        )
    if standing.step:
        log.info("resumes from step %d in %s", standing.step, config.folder)
