"""What a configuration leaves to the data and to the number of ranks, filled in and checked."""

from __future__ import annotations

import math

from megarc.data import Stream
from megarc.errors import UserError
from megarc.model import Split, splits
from megarc.parallel import Topology
from megarc.train.config import RunConfig
from megarc.train.schedule import Lengths


def resolve(config: RunConfig, stream: Stream, topology: Topology) -> RunConfig:
    """``config`` with the vocabulary of the data and the micro-batch of a data rank.

    Raises:
        UserError: where model and data, batch and ranks, or model and topology do not fit.
    """
    model = config.model.model_copy(update={"vocabulary": _vocabulary(config, stream)})
    batch = config.batch.model_copy(update={"micro": _micro_batch(config, topology.data)})
    config = config.model_copy(update={"model": model, "batch": batch})
    _check_tensor(config, topology)
    return config


def _check_tensor(config: RunConfig, topology: Topology) -> None:
    """What is split over the tensor group must divide evenly."""
    size = topology.tensor
    for split in (
        *splits(config.model),
        *(
            Split("the window's rows, with parallel.sequence,", window.rows)
            for window in config.window.all()
            if topology.sequence
        ),
    ):
        if split.fits(size):
            continue
        if split.or_shared:
            raise UserError(
                f"of {split.key} {split.number} and parallel.tensor {size} one must divide the other"
            )
        raise UserError(
            f"parallel.tensor {size}{_times(split.unit)} does not divide {split.key} {split.number}; "
            f"make it {_near(split.number, size * split.unit)}, or change parallel.tensor"
        )


def _times(unit: int) -> str:
    """Said of a nested feed-forward, whose neurons stay together in groups."""
    return f" x {unit} (the denominator of model.nested)" if unit > 1 else ""


def _vocabulary(config: RunConfig, stream: Stream) -> int:
    asked, there = config.model.vocabulary, stream.vocabulary
    if asked is None and there is None:
        raise UserError(
            "model.vocabulary is not given and the data has no manifest that states it; set the key"
        )
    # A model that was begun elsewhere may have more ids than its tokenizer: start_from compares the tokenizers. So may
    # one whose sources do not all state their ids, as a task does and a corpus without a tokenizer does not.
    may = config.start_from is not None or any(one.facts.vocabulary is None for one in stream.sources)
    wider = may and asked is not None and there is not None and asked > there
    if asked is not None and there is not None and asked != there and not wider:
        raise UserError(
            f"model.vocabulary is {asked}, but the data has {there} ids (from its tokenizer or its task); "
            "leave the key out, or pack the data with the tokenizer that you mean"
        )
    return asked if asked is not None else there  # type: ignore[return-value]


def _micro_batch(config: RunConfig, ranks: int) -> int:
    sizes = sorted({stage.size for stage in Lengths(config).batches.stages})
    for size in sizes:
        if size % ranks:
            raise UserError(
                f"batch.size is {size}, which {ranks} data ranks do not divide; use {_near(size, ranks)}, or "
                f"{_ranks(sizes, 1, ranks)} data ranks"
            )
    common = math.gcd(*sizes) // ranks
    micro = common if config.batch.micro is None else config.batch.micro
    if common % micro:
        size = next(size for size in sizes if size // ranks % micro)
        raise UserError(
            f"batch.size {size} over {ranks} data ranks is {size // ranks} a rank, which batch.micro {micro} "
            f"does not divide; use a divisor of {common}, or {_ranks(sizes, micro, ranks)} data ranks"
        )
    return micro


def _ranks(sizes: list[int], micro: int, ranks: int) -> str:
    """The numbers of data ranks next to ``ranks`` that share out every batch in whole micro-batches."""
    parts = math.gcd(*sizes) // micro
    fit = [number for number in range(1, parts + 1) if parts % number == 0]
    below, above = [one for one in fit if one < ranks], [one for one in fit if one > ranks]
    return " or ".join(map(str, below[-1:] + above[:1])) or "other"


def _near(size: int, ranks: int) -> str:
    below, above = size // ranks * ranks, -(-size // ranks) * ranks
    return f"{below} or {above}" if below else f"{above}"
