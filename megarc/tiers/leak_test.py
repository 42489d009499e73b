"""The leak test: what stands behind the boundary changes no roll-out and no row that reads one.

Windows of each source are read again with every token behind the boundary changed.
Writers make their roll-outs from these: they must be the stored ones, bit by bit.
Readers are given these: their R and the boundary's row must be the same, C must not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from megarc.data import Facts, Maker, Sample, Samples, Source, open_source
from megarc.data.counter_random import below, key_of, table
from megarc.data.source import Indices, read_many
from megarc.tiers.rollout_job import open_job
from megarc.tiers.rollout_source import RolloutSource
from megarc.tiers.rollout_store import Rollouts
from megarc.tiers.stack_plan import HELDOUT, StackPlan
from megarc.window import Window

BOUNDARIES = 64


class Leak(AssertionError):
    """Something behind the boundary was seen before it: a bug of ours, never a mistake of the user."""


class Tampered:
    """``source`` with every token behind the boundary changed to some other."""

    def __init__(self, source: Source, window: Window) -> None:
        self._source, self._window = source, window
        self.digest = source.digest  # a reader takes it for the original

    @property
    def facts(self) -> Facts:
        return self._source.facts

    def __len__(self) -> int:
        return len(self._source)

    def read(self, k: int) -> Sample:
        many = self.read_many(np.asarray([k]))
        weights, documents = (None if part is None else part[0] for part in (many.weights, many.documents))
        return Sample(many.tokens[0], weights, documents)

    def read_many(self, k: Indices) -> Samples:
        read = read_many(self._source, k, self._window)
        tokens = read.tokens.astype(np.int64)
        behind = slice(self._window.recent + 1, None)
        vocabulary = self.facts.vocabulary or int(tokens.max()) + 1
        word = table(key_of("tampered"), k, tokens.shape[1])
        shift = 1 + below(word, vocabulary - 1).astype(np.int64)  # never 0: each is another token
        tokens[:, behind] = ((tokens + shift) % vocabulary)[:, behind]
        return Samples(tokens, read.weights, read.documents)


def check_leaks(plan: StackPlan, inner: Mapping[str, Maker]) -> Iterator[str]:
    """Checks every stored companion of a stack, and every reader of one; a line for each.

    Raises:
        Leak: where there is one.
    """
    for reader in (*plan.names[1:], HELDOUT):
        below_it = plan.names[:-1] if reader == HELDOUT else plan.names[: plan.names.index(reader)]
        for writer in below_it:
            yield _check_writer(plan, writer, reader, inner)
        yield _check_reader(plan, plan.top if reader == HELDOUT else reader, reader, inner)


def _check_writer(plan: StackPlan, writer: str, split: str, inner: Mapping[str, Maker]) -> str:
    what = f"roll-outs of {writer} for {split}"
    job = open_job(plan.job(writer, split), "cpu", inner)
    stored = Rollouts(plan.prefix(writer, split))
    # The first batch as it was made, so that rounding is the same too.
    count = min(job.config.writes.batch, job.config.writes.shard, len(job.source))
    boundaries: Indices = np.arange(count, dtype=np.int64)
    text = Tampered(job.source, job.window).read_many(boundaries).tokens
    again, _ = job.write(boundaries, text)
    changed = (again != stored.tokens[boundaries]).any(axis=(1, 2))
    if changed.any():
        untouched, _ = job.write(boundaries)
        if (untouched != again).any():
            raise Leak(
                f"roll-outs of {writer} for {split}: {int(changed.sum())} of {count} see beyond the boundary"
            )
        return f"{what}: no leak, but this machine rounds otherwise than the one that made them"
    return f"{what}: {count} boundaries, every token behind them another, every roll-out the stored one"


def _check_reader(plan: StackPlan, name: str, split: str, inner: Mapping[str, Maker]) -> str:
    reading, base_window = plan.reading(name, split), plan.window.build()
    window = plan.run(name).window.build()
    base = open_source(reading.of, base_window, inner, isolate=reading.isolate)
    stored = [Rollouts(path) for path in reading.rollouts]
    k: Indices = np.arange(min(BOUNDARIES, len(base)), dtype=np.int64)
    one, other = (
        RolloutSource(source, base_window, window, stored, reading).read_many(k).tokens
        for source in (base, Tampered(base, base_window))
    )
    until = window.recent + 1  # R, and the boundary's row
    if (one[:, :until] != other[:, :until]).any():
        raise Leak(f"{name} reading {split}: R changes with what stands behind the boundary")
    if not (one[:, until:] != other[:, until:]).all():
        raise Leak(f"{name} reading {split}: C is not what it reads")
    return f"{name} reading {split}: {len(k)} windows, R is the same, every token of C another"
