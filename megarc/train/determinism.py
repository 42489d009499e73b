"""Whether the same steps give the same bits: once more from the start, and once more from a checkpoint."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from megarc.data import Gaps, Maker, Stream
from megarc.model import Record
from megarc.parallel import Groups, describe_ranks, gather_objects, together
from megarc.train.checkpoint import Level, Saver, Standing, held, latest, load
from megarc.train.config import RunConfig
from megarc.train.engine import MicroBatch, build_engine
from megarc.train.loop import steps
from megarc.train.resolve_config import resolve
from megarc.train.run import open_train
from megarc.train.schedule import Timeline


class Mark(NamedTuple):
    """One tensor at one moment."""

    step: int
    what: str
    digest: str


@dataclass
class Marks:
    """All that this rank computes, in its order: gradients as backward passes make them, then loss, norm and state."""

    step: int = 0
    listed: list[Mark] = field(default_factory=list)

    def add(self, what: str, tensor: Tensor) -> None:
        content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        self.listed.append(Mark(self.step, what, hashlib.sha256(content).hexdigest()[:16]))

    def begin(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Of a ``GradientWatcher``."""

    def before_reduce(self, name: str, record: Record, gradient: Tensor) -> None:
        self.add(f"the gradient of {name}", gradient)


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one comparison. ``first`` is the first mark that differs anywhere, on ``ranks``; None: bit-equal."""

    how: str
    first: Mark | None
    ranks: list[int]
    world: int

    def __str__(self) -> str:
        if self.first is None:
            return f"{self.how}: bit-equal on {self.world} rank{'s' * (self.world > 1)}"
        return (
            f"{self.how}: differs first at step {self.first.step} in {self.first.what}, on rank "
            f"{describe_ranks(self.ranks)} of {self.world}"
        )


def verify_determinism(
    config: RunConfig, groups: Groups, makers: Mapping[str, Maker], count: int
) -> list[Verdict]:
    """Takes the first ``count`` steps twice, and the second half of them once more from a checkpoint.

    All ranks call it together. A checkpoint is written to ``determinism/`` of the run folder, and goes again.

    Raises:
        UserError: as a start does.
    """
    stream = together(lambda: open_train(config, makers), groups.world)
    config = together(lambda: resolve(config, stream, groups.topology), groups.world)
    folder, half = config.folder / "determinism", count // 2
    if groups.first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    gather_objects(None, groups.world)  # the folder is there
    try:
        one = _marks(config, groups, stream, (0, count), save=(half, folder))
        two = _marks(config, groups, stream, (0, count))
        resumed = _marks(config, groups, stream, (half, count), load_from=folder)
    finally:
        if groups.first:
            shutil.rmtree(folder, ignore_errors=True)
    later = [mark for mark in one if mark.step > half]
    return [
        _verdict(f"steps 1 to {count}, twice", one, two, groups),
        _verdict(f"steps {half + 1} to {count}, from a checkpoint", later, resumed, groups),
    ]


def _marks(
    config: RunConfig,
    groups: Groups,
    stream: Stream,
    span: tuple[int, int],
    save: tuple[int, Path] | None = None,
    load_from: Path | None = None,
) -> list[Mark]:
    """Of the steps behind ``span``'s first to its last, on an engine of their own."""
    engine, timeline, marks = build_engine(config, groups), Timeline.of(config), Marks()
    if load_from is not None:
        saved = latest(load_from)
        assert saved is not None
        load(saved, engine)
    engine.before_reduce(marks)
    feed = steps(
        stream, groups, timeline, config.batch.micro_batch, Gaps(), engine.heartbeat,
        vocabulary=config.model.tokens, first=span[0], total=span[1],
    )  # fmt: skip
    for number, micro_batches in enumerate(feed, start=span[0]):
        marks.step = number + 1
        result = engine.step(micro_batches, timeline.learning_rate(number), growth=timeline.growth(number))
        marks.add("the loss", result.loss)
        marks.add("the gradient's norm", result.gradient_norm)
        for fragment in held(engine):
            for part, tensor in fragment.state.items():
                marks.add(f"{part} of {fragment.name}", tensor)
        if save is not None and marks.step == save[0]:
            saver = Saver(groups)
            standing = Standing(step=marks.step, samples=timeline.batches.samples_before(marks.step))
            saver.save(engine, standing, {"config": {}}, Level.shared(save[1], groups, keep=1))
            saver.wait()
    engine.close()
    return marks.listed


def _verdict(how: str, one: Sequence[Mark], other: Sequence[Mark], groups: Groups) -> Verdict:
    places = [place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]]
    own = (places[0], one[places[0]]) if places else None
    if own is None and len(one) != len(other):
        own = (min(len(one), len(other)), Mark(one[-1].step, "how many tensors there are", ""))
    found = gather_objects(own, groups.world)
    differing = [
        (mark.step, place, rank) for rank, pair in enumerate(found) if pair for place, mark in [pair]
    ]
    if not differing:
        return Verdict(how, None, [], groups.world.size)
    step, place, rank = min(differing)
    first = found[rank]
    assert first is not None
    ranks = [other for at, where, other in differing if (at, where) == (step, place)]
    return Verdict(how, first[1], ranks, groups.world.size)
