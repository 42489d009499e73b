"""A step of full size without an update, before the first: whether memory is enough is known at once."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from megarc.data import Stream, part_of_step
from megarc.errors import UserError
from megarc.parallel import Groups
from megarc.train.checkpoint import make_state
from megarc.train.config import RunConfig
from megarc.train.engine import Engine, to_tensors, unwanted
from megarc.train.folder import RunFolder
from megarc.train.heartbeat import Heartbeat
from megarc.train.metrics import no_memory, peak_memory
from megarc.train.schedule import heaviest

Explain = Callable[[RunConfig, int, int], str]
"""(configuration, ranks, this rank) -> a table of where its memory goes, and what would fit."""


def dry_step(engine: Engine, stream: Stream) -> None:
    """Takes all that a step takes: activations, gradients, the optimizer's moments. Weights don't change."""
    engine.heartbeat.enter("dry step")
    config, data = engine.config, engine.groups.data
    parts = part_of_step(0, config.batch.size, data.rank, data.size, config.batch.micro_batch)
    make_state(engine)
    batches = [stream.read(stream.heaviest + first, count) for first, count in parts]
    for batch in batches:
        stream.check_ids(batch, config.model.tokens)
    micro_batches = [
        to_tensors(batch, engine.groups.device, sharing=engine.sharing)._replace(
            kept=width.kept, share=width.share
        )
        for batch in batches
        for width in heaviest(config)
    ]
    engine.step(micro_batches, 0.0, unwanted)


@contextmanager
def memory_errors_explained(
    config: RunConfig, groups: Groups, heartbeat: Heartbeat, folder: RunFolder, explain: Explain | None
) -> Iterator[None]:
    """Explains an allocation that fails, on the rank that met it.

    Raises:
        UserError: with ``explain``'s table.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not no_memory(error):
            raise
        text = str(error).splitlines()[0] if str(error) else "no more memory"
        world = groups.world
        problem = (
            f"memory is not enough (while {heartbeat.phase}): rank {world.rank} of {world.size} on "
            f"{socket.gethostname()} held {peak_memory(groups.device) / 2**30:.2f} GiB and got no more ({text})"
        )
        folder.record_failure(problem)
        table = f"\n{explain(config, world.size, world.rank)}" if explain else ""
        advice = (
            "\nalso: more ranks with parallel.zero=3 or parallel.tensor, parallel.offload. Give the same command "
            "with one of these"
        )
        raise UserError(problem + table + advice) from None
