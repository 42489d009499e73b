"""The door of the room: one run, from a configuration to a finished folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from megarc.attention import resolve as choose_attention
from megarc.config import digest_of
from megarc.data import Maker, Stream, open_stream
from megarc.errors import UserError
from megarc.model import cost_of
from megarc.parallel import Groups, agree, broadcast_object, together
from megarc.progress import human
from megarc.train.checkpoint import Level, Standing
from megarc.train.checkpoint.observer import Due
from megarc.train.checkpoint.resume import resume
from megarc.train.config.run import RunConfig
from megarc.train.ending import failure_told, how_it_ended
from megarc.train.engine.build import build_engine
from megarc.train.engine.dry_step import Explain, dry_step, memory_told
from megarc.train.folder.folder_lock import hold
from megarc.train.folder.run_folder import RunFolder
from megarc.train.health import Signals, alarmed, clear, watched
from megarc.train.health.fault_injection import arm
from megarc.train.heartbeat import Heartbeat
from megarc.train.loop.attempts import Attempts
from megarc.train.loop.learning_rate import learning_rate
from megarc.train.loop.observer import Ending, Observer
from megarc.train.resolve import resolve

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
    config, stream, heldout = together(lambda: _opened(config, groups, makers or {}), groups.world)
    agree({"configuration": digest_of(config), "data": ", ".join(stream.digests)}, groups.world)
    folder = RunFolder(config.folder)
    signals, heartbeat = Signals(), Heartbeat()
    with ExitStack() as stack:
        stack.enter_context(signals.caught())
        _enter(stack, folder, config, groups, stream, heartbeat)
        stack.enter_context(_watched(folder, config, groups, heartbeat))
        stack.enter_context(memory_told(config, groups, heartbeat, folder, explain))
        heartbeat.enter("building")
        engine = build_engine(config, groups, heartbeat)
        stack.callback(engine.close)
        arm(engine)
        heartbeat.enter("loading")
        levels = _levels(config, folder, groups)
        resumed = resume(engine, [due.level for due in levels], stream)
        stream = stream.in_phase(resumed.standing.phase)
        _announce(config, groups, stream, resumed.standing)
        if config.health.dry_step and resumed.standing.step < config.total_steps():
            dry_step(engine, stream)
        stretch = Attempts(config, engine, stream, heldout, folder, levels, signals, list(watch))
        ending = stretch.until_the_end(resumed)
        if groups.first:
            log.info(how_it_ended(ending, config, _last_step(config, resumed.standing)))
        return ending


def _last_step(config: RunConfig, standing: Standing) -> int:
    return config.last_step(config.batches().standing_at(standing.step, standing.samples))


def _levels(config: RunConfig, folder: RunFolder, groups: Groups) -> list[Due]:
    """The shared checkpoints first, then the hosts' own where they are asked for."""
    keys = config.checkpoint
    keep_every = config.steps(keys.keep_every) if keys.keep_every else None
    levels = [
        Due(Level.shared(folder.checkpoints, groups, keys.keep, keep_every), config.interval(keys.every))
    ]
    if keys.local is not None:
        run = broadcast_object(folder.run if groups.first else "", groups.world)
        local = Level.local(keys.local, folder.path, run, groups)
        levels.append(Due(local, config.interval(keys.local_every)))
    return levels


def _opened(
    config: RunConfig, groups: Groups, makers: Mapping[str, Maker]
) -> tuple[RunConfig, Stream, Stream | None]:
    """The resolved configuration, the training stream and the held-out one."""
    window = config.window.build()
    stream = open_stream(config.data, "train", window, config.seed, makers=makers)
    heldout = (
        open_stream(config.data, "valid", window, config.seed, makers=makers) if config.data.valid else None
    )
    if stream.placed and groups.topology.pipeline > 1:
        raise UserError(
            "data.train gives each row a position, which does not flow through a pipeline; "
            "use positions: rows there, or parallel.pipeline=1"
        )
    learning_rate(config)  # what is wrong with it is said before anything is built
    return resolve(config, stream, groups.topology), stream, heldout


def _enter(
    stack: ExitStack,
    folder: RunFolder,
    config: RunConfig,
    groups: Groups,
    stream: Stream,
    heartbeat: Heartbeat,
) -> None:
    """Rank 0 takes the folder for all; then each rank sees that it is there, and keeps its log in it."""
    facts = {"ranks": groups.world.size, "sources": list(stream.digests)}
    together(lambda: _take(stack, folder, config, facts, heartbeat) if groups.first else None, groups.world)
    together(lambda: folder.seen_by(groups.world.rank), groups.world)
    stack.enter_context(folder.logged(logging.getLogger(), folder.log_of(groups.world.rank)))


def _take(
    stack: ExitStack, folder: RunFolder, config: RunConfig, facts: dict[str, Any], heartbeat: Heartbeat
) -> None:
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        taken_over = stack.enter_context(hold(folder.lock))
        if taken_over:
            log.warning(taken_over)
        folder.enter(config, facts)
        clear(folder.ranks)
        stack.enter_context(folder.logged(log, folder.log))

        def where() -> str:
            return f"step {heartbeat.step}, {heartbeat.phase}"

        stack.enter_context(failure_told(folder, where))
        stack.enter_context(folder.failures_told(where, known=lambda: alarmed(folder.ranks)))
    except OSError as problem:
        raise UserError(f"the run folder {folder.path} cannot be made: {problem}") from None


def _watched(
    folder: RunFolder, config: RunConfig, groups: Groups, heartbeat: Heartbeat
) -> AbstractContextManager[None]:
    def tell(headline: str, blamed: list[int]) -> None:
        folder.tell_failure(
            headline, reason="hang", culprits=blamed, step=heartbeat.step, total=config.total_steps()
        )

    return watched(heartbeat, folder.ranks, groups.world, config.health.patience, tell)


def _announce(config: RunConfig, groups: Groups, stream: Stream, standing: Standing) -> None:
    if not groups.first:
        return
    window, batches = config.window.build(), config.batches().standing_at(standing.step, standing.samples)
    total, size = config.total_steps(batches), batches.size(standing.step)
    samples = batches.samples_before(total)
    cost = cost_of(config.model, window)
    sizes = f"{human(cost.parameters)} parameters ({human(cost.embedding_parameters)} of them embeddings)"
    predicted = human(samples * window.stride + standing.more_predicted)
    processed = human(samples * window.rows + standing.more_processed)
    step = f"{human(size * window.stride)} predicted, {human(size * window.rows)} processed tokens a step"
    log.info(f"window {window}; {sizes}, vocabulary {config.model.tokens}")
    log.info(f"{total} steps of {batches}: {predicted} predicted, {processed} processed tokens; {step}")
    log.info(f"{groups.world.size} ranks, ZeRO {config.parallel.zero}, {config.precision}, {groups.device}")
    choose_attention(config.execution.attention, groups.device, config.dtype, config.model.width_of_head)
    for line in stream.describe(samples - standing.begin):
        log.info(line)
    if standing.step:
        log.info("goes on from step %d in %s", standing.step, config.folder)
