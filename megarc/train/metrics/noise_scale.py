"""The gradient noise scale of a run, at no extra pass (McCandlish et al. 2018, 1812.06162, appendix A).

A step's micro-batches, over all data ranks, are its sample groups. From the
mean squared norm of their gradients, b samples each, and the squared norm of
the whole batch's gradient, B samples:

    |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b)        the true gradient's squared norm
    tr S  = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)        the variance of one sample's gradient

Each is averaged over time, then divided: ``batch/noise_scale = tr S / |G|^2``, in samples.

A hook sees each parameter's gradient in the backward pass, before anything is
accumulated, reduced, partitioned or clipped; one scalar is reduced a measurement.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import orjson
import torch
from torch import Tensor

from megarc.model import Record
from megarc.parallel import Groups, all_reduce_sum, first_to_last
from megarc.train.engine import Engine, MicroBatch, StepResult, norm_of
from megarc.train.folder import RunFolder
from megarc.train.loop import Done, Ending, Moment, Observer

log = logging.getLogger("megarc")

_KEPT_A_LINE = 0.9  # of the running averages, from one line of metrics to the next
_EMBEDDING = "embedding.weight"


class Estimate(NamedTuple):
    """Unbiased, of one step or averaged: |G|^2 and tr S."""

    square: float
    variance: float

    @classmethod
    def of(cls, small: float, group: int, large: float, batch: int) -> Estimate:
        """From squared norms: the mean over groups of ``group`` samples, and the whole batch's."""
        square = (batch * large - group * small) / (batch - group)
        return cls(square, (small - large) / (1 / group - 1 / batch))


class NoiseScale(Observer):
    """Measures every so many steps (0: never); ``values`` tells what the metrics write.

    Args:
        micro_batch: samples that a rank takes at once.
        tied: whether head and embedding share one matrix.
    """

    def __init__(self, every: int, micro_batch: int, tied: bool, folder: RunFolder, groups: Groups) -> None:
        self.every, self.micro_batch = every, micro_batch
        self.folder, self.groups = folder, groups
        self.squares = GroupSquares(groups, tied)
        self._unread: list[tuple[int, int, Tensor]] = []  # step, its batch, the mean square of its groups
        self._measured: list[Estimate] = []  # since the last line
        self._average = Estimate(0.0, 0.0)
        self._explained = False

    def start(self, engine: Engine, moment: Moment) -> None:
        if self.every:
            engine.before_reduce(self.squares)
        for line in _earlier(self.folder, moment.step) if self.groups.first else []:
            self._fold(line)
        self._arm(moment.step)

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        if self.squares.armed:
            self._unread.append((moment.step, moment.samples - moment.before, self.squares.mean()))
        self._arm(moment.step)

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> None:
        by_number = {done.step: done for done in steps}
        for step, batch, small in self._unread:
            if by_number[step].left_out:
                continue
            if batch > self.micro_batch:
                large = by_number[step].gradient_norm ** 2
                self._measured.append(Estimate.of(float(small), self.micro_batch, large, batch))
            elif not self._explained:
                self._explained = True
                log.info("batch/noise_scale (the gradient noise scale, docs/batch.md) is undefined: it compares "
                         "groups of samples, and here a step is one micro-batch on one data rank. Training is "
                         "not affected. With a smaller batch.micro there are groups.")  # fmt: skip
        self._unread.clear()

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        self.squares.armed = False

    def values(self) -> dict[str, float | None]:
        """For a line of metrics: of the steps since the last one, and the scale from the running averages.

        The scale is null where it is undefined, or where the gradient is lost in noise. Nothing is written
        where nothing was measured.
        """
        if not self._measured:
            return {"batch/noise_scale": None} if self._explained else {}
        line = Estimate(*(sum(column) / len(column) for column in zip(*self._measured, strict=True)))
        self._measured.clear()
        self._fold(line)
        square, variance = self._average
        return {
            "batch/gradient_square": line.square,
            "batch/gradient_variance": line.variance,
            "batch/noise_scale": variance / square if square > 0 else None,
        }

    def _fold(self, line: Estimate) -> None:
        """Both averages with one weight, which cancels when they are divided."""
        self._average = Estimate(
            *(_KEPT_A_LINE * old + new for old, new in zip(self._average, line, strict=True))
        )

    def _arm(self, step: int) -> None:
        self.squares.armed = self.every > 0 and step % self.every == 0


class GroupSquares:
    """The squared norm of each micro-batch's gradient, collected while backward passes run."""

    def __init__(self, groups: Groups, tied: bool) -> None:
        self.groups, self.tied = groups, tied and groups.pipeline.size > 1
        self.armed = False
        self._micro_batches: Sequence[MicroBatch] = []
        self._norms: list[tuple[Tensor, float]] = []  # a norm, and the share of its square that counts here
        self._tied: list[Tensor] = []  # a micro-batch's rows of an embedding that two stages hold

    def begin(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Before a step."""
        self._micro_batches = micro_batches
        self._norms.clear()
        self._tied.clear()

    def before_reduce(self, name: str, record: Record, gradient: Tensor) -> None:
        """A parameter's gradient of one micro-batch, on this rank."""
        if not self.armed:
            return
        context = self.groups.context
        if context.size > 1:
            # Each has that of its rows, times the number of context ranks: DeepSpeed averages over them.
            gradient = all_reduce_sum(gradient.to(torch.float32, copy=True), context) / context.size
        # What every tensor rank holds alike counts once over them all.
        share = 1.0 if record.split else 1.0 / self.groups.tensor.size
        self._norms.append((norm_of([gradient]), share))
        if self.tied and name == _EMBEDDING:
            if context.size == 1:
                gradient = gradient.index_select(0, _rows(self._micro_batches[len(self._tied)], record))
            self._tied.append(gradient)

    def mean(self) -> Tensor:
        """The mean over all groups of samples, after a step: a scalar, the same on every rank.

        The engine divides each micro-batch's loss by their number m, so that
        their gradients add up to the rank's; a group's own gradient is m times that.
        """
        norms, shares = zip(*self._norms, strict=True)
        total = (torch.stack(norms).square() * torch.tensor(shares, device=self.groups.device)).sum()
        if self._tied:
            total += 2 * self._across()
        count = len(self._micro_batches)
        return all_reduce_sum(total, self.groups.world) * count / self.groups.replicas.size

    def _across(self) -> Tensor:
        """Of an embedding that first and last stage share: the product of their two gradients.

        Each stage adds its own square, and ``|x + y|^2 = |x|^2 + |y|^2 + 2 x.y``. The first stage's
        gradient is 0 but in the rows of the tokens that it read, so that those are all that is sent; but with
        context ranks, which read different ones.
        """
        own = torch.cat(self._tied).float()
        first = first_to_last(own, self.groups.pipeline)
        return own.new_zeros(()) if first is None else (own * first).sum()


def _rows(batch: MicroBatch, record: Record) -> Tensor:
    """The rows of this rank's part of the embedding that a micro-batch reads."""
    box = record.boxes[0]
    read = (batch.tokens[:, :-1] if batch.inputs is None else batch.inputs).unique()
    return read[(read >= box.top) & (read < box.bottom)] - box.top


def _earlier(folder: RunFolder, step: int) -> list[Estimate]:
    """What a run that goes on has written up to ``step``."""
    found = []
    for line in folder.metrics.read_bytes().splitlines() if folder.metrics.exists() else []:
        try:
            entry = orjson.loads(line)
            if entry["step"] <= step:
                found.append(Estimate(entry["batch/gradient_square"], entry["batch/gradient_variance"]))
        except (orjson.JSONDecodeError, KeyError):
            continue  # half written, or a line of held-out loss
    return found
