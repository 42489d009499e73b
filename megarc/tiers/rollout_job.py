"""Making roll-outs: every boundary of a source, shard by shard, over all ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from megarc.data import Maker, Source, open_source
from megarc.data.source import Indices, read_many
from megarc.errors import UserError
from megarc.parallel import Groups, broadcast_object, together
from megarc.progress import human, progress
from megarc.tiers.config import RolloutsConfig
from megarc.tiers.rollout_layout import Tags, Tokens
from megarc.tiers.rollout_shards import Shards
from megarc.tiers.rollout_store import RolloutFacts, Rollouts, Written, exists, facts_of
from megarc.tiers.rollout_writer import TierWriter, Writer, open_writer
from megarc.tiers.sampling import draws
from megarc.tiers.stack_flops import share_of_training
from megarc.train import hold
from megarc.window import Window

log = logging.getLogger("megarc")


def make_rollouts(config: RolloutsConfig, groups: Groups, inner: Mapping[str, Maker]) -> Rollouts:
    """The roll-outs that a job asks for, made where they are not there yet. All ranks call it together.

    A rank takes every ranks-th shard. What a killed job has made is kept: each rank
    loses the shard that it was at.

    Args:
        inner: sources beyond corpora, by kind.

    Raises:
        UserError: for everything that a user can put right.
    """
    job = together(lambda: open_job(config, groups.device, inner), groups.world)
    prefix, shards = config.to, Shards(config.to, job.facts, config.writes.shard)
    if together(lambda: exists(prefix, job.facts), groups.world):
        if groups.first:
            log.info("%s is there already", prefix)
        return Rollouts(prefix)
    with ExitStack() as stack:
        together(lambda: _enter(stack, shards) if groups.first else None, groups.world)
        missing = broadcast_object(shards.missing() if groups.first else [], groups.world)
        if groups.first:
            _announce(job, shards, missing)
        begun = time.monotonic()
        together(lambda: _make(job, shards, missing, groups), groups.world)
        together(lambda: _finish(shards, missing, begun) if groups.first else None, groups.world)
    return Rollouts(prefix)


def _enter(stack: ExitStack, shards: Shards) -> None:
    """One job at a time; what a killed one left of the same plan stays."""
    shards.open_folder()
    taken_over = stack.enter_context(hold(shards.folder / "lock"))
    if taken_over:
        log.warning(taken_over)
    shards.keep_only_this_plan()


def _make(job: Job, shards: Shards, missing: list[int], groups: Groups) -> None:
    """This rank's part of the missing shards."""
    writes, ranks = job.config.writes, groups.world.size
    each = writes.samples * writes.tokens
    total = sum(len(shards.boundaries(shard)) for shard in missing) * each
    with progress(job.config.to.name, total, unit="tokens", quiet=not groups.first) as bar:
        for shard in missing[groups.world.rank :: ranks]:
            parts = []
            for some in _batches(shards.boundaries(shard), writes.batch):
                parts.append(job.write(some))
                # Rank 0 speaks for all: the others are about as far.
                bar.advance(len(some) * each * min(ranks, len(missing)))
            tokens, likely = (np.concatenate(column) for column in zip(*parts, strict=True))
            shards.save(shard, (tokens, likely))


def _finish(shards: Shards, missing: list[int], begun: float) -> None:
    seconds = time.monotonic() - begun
    facts, made = shards.facts, shards.join()
    boundaries = sum(len(shards.boundaries(shard)) for shard in missing)
    rate = boundaries * facts.samples * facts.tokens / max(seconds, 1e-9)
    mean = float(np.mean(made.log_probabilities, dtype=np.float64))
    log.info(f"{made.prefix}: {human(rate)} tokens/s; {-mean:.3f} nats a token under the writer")


@dataclass(frozen=True)
class Job:
    """A job with everything opened."""

    config: RolloutsConfig
    source: Source
    window: Window
    below: list[Rollouts]
    writer: Writer

    def __post_init__(self) -> None:
        known, there = self.writer.vocabulary, self.source.facts.vocabulary
        if there is not None and known < there:
            raise UserError(
                f"{self.config.writer} knows {known} tokens, {self.source.facts.name} has {there}: "
                "the writer must have been trained with the same tokenizer"
            )
        for one in self.below:
            one.check(self.source, self.window)

    @property
    def facts(self) -> RolloutFacts:
        """The sidecar, but for the content."""
        config = self.config
        return facts_of(
            self.source, self.window, config.writes, tier=config.tier, writer=self.writer.digest,
            reads=[str(one.facts.content) for one in self.below], seed=config.seed,
        )  # fmt: skip

    def write(self, boundaries: Indices, text: Tokens | None = None) -> Written:
        """Roll-outs at ``boundaries`` [batch].

        Args:
            text: [batch, rows + 1], in place of the source's windows.
        """
        if text is None:
            text = read_many(self.source, boundaries, self.window).tokens.astype(np.int64)
        below = [(one.facts.tier, one.tokens[boundaries].astype(np.int64)) for one in self.below]
        known = text[:, : self.window.recent + 1]  # up to and including the boundary's token
        uniforms = draws(self.config.seed, self.config.tier, boundaries, self.config.writes)
        return self.writer.write(known, below, uniforms)


def open_job(config: RolloutsConfig, device: torch.device | str, inner: Mapping[str, Maker]) -> Job:
    """Source, roll-outs below and writer of a job.

    Raises:
        UserError: where one is missing or does not fit the others.
    """
    window = config.window.build()
    source = open_source(config.of, window, inner, place="of")
    below = [Rollouts(path) for path in config.reads]
    tags = Tags.of(source.facts.reserved, source.facts.name)
    facts = source.facts
    writer = open_writer(config, tags, torch.device(device), facts.tokenizer_digest, facts.vocabulary)
    return Job(config, source, window, below, writer)


def _batches(boundaries: range, size: int) -> Iterator[Indices]:
    for first in range(0, len(boundaries), size):
        yield np.asarray(boundaries[first : first + size], dtype=np.int64)


def _announce(job: Job, shards: Shards, missing: list[int]) -> None:
    writes, count = job.config.writes, len(job.source)
    log.info(
        f"{job.source.facts.name}: {human(count)} boundaries x {writes.samples} roll-outs x {writes.tokens} tokens "
        f"= {human(count * writes.samples * writes.tokens)} tokens"
    )
    if isinstance(job.writer, TierWriter):
        saved, window = job.writer.saved, job.writer.window
        share = share_of_training(
            saved.config.model, window, writes.samples, writes.tokens, min(window.rows, job.window.recent + 1)
        )
        log.info(f"the roll-outs of a window cost {share:.2f} of a training step of their writer on one")
    if len(missing) < shards.count:
        log.info(f"{shards.count - len(missing)} of {shards.count} shards are there already")
