"""The ranks that a launcher started for a model in use: some share the rows of windows, the others share the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from megarc.errors import UserError, reported_once
from megarc.parallel import Groups, connect, disconnect, meet
from megarc.rank_environment import read_rank_environment


@contextmanager
def ranks_in_use(device: str, context: int) -> Iterator[Groups | None]:
    """The groups of this process, which ``context`` ranks and then tensor ranks form; None: it is alone.

    Raises:
        UserError: where ``context`` does not divide the ranks.
    """
    process = read_rank_environment()
    if process.world % context:
        raise UserError(
            f"--context {context} does not divide the {process.world} ranks that were started: start a multiple of it, "
            f"with torchrun --nproc-per-node {context} for instance"
        )
    if process.world == 1:
        yield None
        return
    try:
        with reported_once(process.rank == 0):
            yield connect(meet(process), device, tensor=process.world // context, context=context)
    finally:
        disconnect()
