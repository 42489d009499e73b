"""Trainings of a few steps in this process, without a run folder: for studies of many small models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from megarc.data import Gaps, Maker, Stream
from megarc.parallel import Groups
from megarc.train import (
    Engine,
    RunConfig,
    StepResult,
    Timeline,
    build_engine,
    open_heldout,
    open_train,
    resolve,
)
from megarc.train.loop import steps
from megarc.train.metrics import heldout_losses, together_of


@dataclass(frozen=True, slots=True)
class ShortTraining:
    """A model in training; ``config`` is resolved."""

    config: RunConfig
    engine: Engine
    stream: Stream
    heldout_stream: Stream | None

    def steps(self, count: int) -> Iterator[StepResult]:
        """The first ``count`` steps of the run, one after the other, with its learning rates."""
        timeline, config = Timeline.of(self.config), self.config
        feed = steps(
            self.stream, self.engine.groups, timeline, config.batch.micro_batch, Gaps(), self.engine.heartbeat,
            vocabulary=config.model.tokens, first=0, total=count,
        )  # fmt: skip
        for step, micro_batches in enumerate(feed):
            yield self.engine.step(micro_batches, timeline.learning_rate(step))

    def heldout(self, kept: int | None = None) -> float:
        """Held-out loss in nats a token; ``kept`` as a nested model takes it."""
        assert self.heldout_stream is not None, "the configuration has no data.valid"
        losses = heldout_losses(self.engine, self.heldout_stream, self.config.validation.windows, kept)
        return together_of(losses).in_units()["nats_per_token"]


@contextmanager
def short_training(
    config: RunConfig, groups: Groups, makers: Mapping[str, Maker] | None = None
) -> Iterator[ShortTraining]:
    """The model of ``config`` with initial values, on this process's ranks; let go at the end of the block.

    Raises:
        UserError: where model, data and topology do not fit.
    """
    stream = open_train(config, makers)
    heldout = open_heldout(config, makers) if config.data.valid else None
    config = resolve(config, stream, groups.topology)
    engine = build_engine(config, groups)
    try:
        yield ShortTraining(config, engine, stream, heldout)
    finally:
        engine.close()
