"""One optimizer step, on DeepSpeed's engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from megarc.model import (
    Beside,
    Head,
    Loss,
    Record,
    head_loss,
    named_state,
    pick_rows,
    record_of,
    scored,
    weighted_sum,
)
from megarc.parallel import Groups, TensorParallel, all_reduce_sum
from megarc.train.config import RunConfig
from megarc.train.engine.average import Average
from megarc.train.engine.expert_balance import ExpertBalance
from megarc.train.engine.factors import over_batch
from megarc.train.engine.gradient_norm import norm_of
from megarc.train.engine.micro_batch import MicroBatch
from megarc.train.engine.row_sharing import RowSharing
from megarc.train.engine.sharded_optimizer import ShardedOptimizer
from megarc.train.engine.update_gate import UpdateGate, Verdict
from megarc.train.heartbeat import Heartbeat

Judge = Callable[[Tensor, Tensor], Tensor]
"""(loss, gradient norm) -> whether the update is bad, a bool on the device: the same on every rank."""
Part = Callable[[Loss, MicroBatch], Tensor]
"""What a pipeline's last stage adds up of each micro-batch's loss."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did. Tensors stay on the device: reading one waits for the step.

    Attributes:
        loss: mean negative log-likelihood of the whole batch, in nats a predicted token.
        gradient_norm: of the whole gradient, before clipping.
        own_nll: the sum of this rank's weighted losses, in nats: of its samples, and with parallel.context of its rows.
        bad: bool; the update was left out, on every rank alike.
        empty: bool; no row of the whole batch has a weight above 0, so there was nothing to learn. Bad too.
    """

    loss: Tensor
    gradient_norm: Tensor
    learning_rate: float
    own_nll: Tensor
    bad: Tensor
    empty: Tensor


def welcome(loss: Tensor, gradient_norm: Tensor) -> Tensor:
    """The judge to whom no update is bad."""
    return torch.zeros_like(loss, dtype=torch.bool)


def unwanted(loss: Tensor, gradient_norm: Tensor) -> Tensor:
    """The judge to whom every update is: a step of which nothing remains."""
    return torch.ones_like(loss, dtype=torch.bool)


@dataclass(frozen=True, slots=True)
class Work:
    """What FLOPs depend on beside the model: samples, the (query, key) pairs that they allow, and loss rows.

    ``neurons`` sums, over samples, the part of the feed-forwards' neurons that took part: 1, or less in a nested model.
    Samples that go through the model several times count each time.
    """

    samples: int = 0
    pairs: float = 0
    loss_rows: int = 0
    neurons: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Work) -> Work:
        return Work(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class GradientWatcher(Protocol):
    """Sees gradients while backward passes run."""

    def begin(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Before a step of these."""

    def before_reduce(self, name: str, record: Record, gradient: Tensor) -> None:
        """A parameter's gradient of one micro-batch, divided by their number; in the micro-batches' order."""


class Engine:
    """The model, its optimizer and their shards on this rank. ``build_engine`` makes it.

    All ranks call its methods together.
    """

    def __init__(
        self, config: RunConfig, groups: Groups, deepspeed_engine: Any, heartbeat: Heartbeat | None = None
    ) -> None:
        self.config, self.groups = config, groups
        self.deepspeed = deepspeed_engine
        self.heartbeat = heartbeat or Heartbeat()
        self.loss_rows = config.window.build().loss_rows
        self._watchers: list[GradientWatcher] = []
        self.nll = torch.zeros((), device=groups.device)  # sum of w * nll of this rank's step
        self.work = Work()  # of this rank's steps
        self.sharing = RowSharing.of(config, groups)
        self.samples: list[int] = []  # of this rank's step, their numbers in the order
        self._norm = self.nll
        self._gate = UpdateGate(self.optimizer)
        self.average: Average | None = None  # of the weights, where the run keeps one
        self.experts = ExpertBalance.of(self._modules(), groups)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that DeepSpeed's own one calls."""
        outer = self.deepspeed.optimizer
        inner: torch.optim.Optimizer = getattr(outer, "optimizer", outer)
        return inner

    def parameters(self) -> Iterator[tuple[str, nn.Parameter, Record]]:
        """Canonical name, parameter and record of what this rank has, in a fixed order."""
        for name, parameter in self.deepspeed.module.named_parameters():
            yield self._canonical(name), parameter, record_of(parameter)

    def state(self) -> Iterator[tuple[str, Tensor, Record]]:
        """The same of what is neither trained nor shared out: every data and tensor rank of a stage holds all of it."""
        for name, buffer in named_state(self.deepspeed.module):
            yield self._canonical(name), buffer, record_of(buffer)

    def before_reduce(self, watcher: GradientWatcher) -> None:
        """Shows ``watcher`` each gradient of a micro-batch before it is accumulated, reduced or clipped."""
        self._watchers.append(watcher)
        for name, parameter, record in self.parameters():
            parameter.register_hook(partial(watcher.before_reduce, name, record))

    def step(
        self,
        micro_batches: Sequence[MicroBatch],
        learning_rate: float,
        judge: Judge = welcome,
        growth: float = 1.0,
    ) -> StepResult:
        """Forward and backward of this rank's micro-batches, then one update, or none. Nothing is waited for.

        The loss is ``sum(w * nll) / W``, W over the whole batch; DeepSpeed
        averages over the ranks that hold the same weights and over micro-batches, so
        each hands it its share of the sum times their number. ``growth`` times ``batch.size`` samples are in it.
        """
        self.heartbeat.enter("weighing")
        self._accumulate_over(len(micro_batches))
        for watcher in self._watchers:
            watcher.begin(micro_batches)
        total = self._total_weight(micro_batches)
        empty = total <= 0
        # A sum over no row is 0, whatever it is divided by.
        total = torch.where(empty, 1.0, total)
        factor = self.groups.replicas.size * len(micro_batches) / total
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        if isinstance(self.optimizer, ShardedOptimizer):
            self.optimizer.over_batch = over_batch(self.config, growth)
        self.work += self._work_of(micro_batches)
        self.samples = [int(number) for batch in micro_batches for number in batch.samples]
        loss = norm = self.nll = torch.zeros((), device=self.groups.device)

        def decide() -> Verdict:
            nonlocal loss, norm
            loss, norm = self._whole_nll() / total, self._gradient_norm()
            return Verdict(judge(loss, norm) | empty, self._divisor(norm))

        if self.experts is not None:
            self.experts.begin(sum(len(batch.tokens) for batch in micro_batches))
        with self._gate.deciding(decide):
            self._update(micro_batches, factor)
        if self.experts is not None:
            self.experts.end(self._gate.verdict().bad)
        return StepResult(loss, norm, learning_rate, self.nll, self._gate.verdict().bad, empty)

    @torch.no_grad()
    def evaluate(self, batch: MicroBatch) -> Tensor:
        """Of this rank's ``batch``: weighted sums of losses in nats and of right first guesses, [2].

        Context ranks have different rows of one batch: sum over ``groups.replicas``.
        """
        return scored(self._scored(batch), batch.weights)

    @torch.no_grad()
    def losses(self, batch: MicroBatch) -> Tensor:
        """Of the rows ``batch.rows`` (which it must have) of this data rank, [2, k]: losses in nats, and 1 where the
        likeliest token is the target, else 0. Of the rows of all context ranks, the same on each of them."""
        return self._of_all_rows(_by_row(self._scored(batch), batch), batch)

    def _of_all_rows(self, found: Tensor, batch: MicroBatch) -> Tensor:
        """[2, k] of this rank's loss rows -> those of all context ranks, in the batch's order."""
        if batch.loss_places is None:
            return found
        whole = found.new_zeros(2, batch.loss_rows)
        whole[:, batch.loss_places] = found
        return all_reduce_sum(whole, self.groups.context)

    def close(self) -> None:
        """Lets the engine's buffers and hooks go."""
        self.deepspeed.destroy()

    def _scored(self, batch: MicroBatch) -> Loss:
        self.heartbeat.enter("evaluating")
        self.deepspeed.eval()
        loss: Loss = self.deepspeed(
            batch.tokens, self._rows(batch), batch.seen, positions=batch.positions, inputs=batch.inputs,
            kept=batch.kept,
        )  # fmt: skip
        self.deepspeed.train()
        return loss

    def _modules(self) -> Iterator[tuple[str, nn.Module]]:
        """The blocks' modules under their canonical names."""
        for name, module in self.deepspeed.module.named_modules():
            if ".feed_forward." in name:
                yield self._canonical(name), module

    # ---- what a pipeline does otherwise

    def _canonical(self, name: str) -> str:
        return name

    def _update(self, micro_batches: Sequence[MicroBatch], factor: Tensor | float) -> None:
        """Trains on this rank's micro-batches; their sum of w * nll is added to ``self.nll``."""
        z_loss = self.config.optimizer.z_loss
        for batch in micro_batches:
            self.heartbeat.enter("forward")
            loss = self.deepspeed(
                batch.tokens, self._rows(batch), batch.seen, batch.positions, batch.weights, z_loss, batch.inputs,
                batch.kept,
            )  # fmt: skip
            self.nll += weighted_sum(loss.nll, batch.weights) * batch.share
            self.heartbeat.enter("backward")
            self.deepspeed.backward(loss.objective * (factor * batch.share))
            if batch is not micro_batches[-1]:
                self.deepspeed.step()  # between micro-batches this only counts
        if self.config.parallel.zero == 0:
            self._norm = self._own_norm()
        self.heartbeat.enter("update")
        self.deepspeed.step()

    def _work_of(self, micro_batches: Sequence[MicroBatch]) -> Work:
        """Known on the host: no device is waited for."""
        given = self.loss_rows.stop - self.loss_rows.start
        rows = [
            len(batch.tokens) * given if batch.rows is None else len(batch.rows) for batch in micro_batches
        ]
        samples = sum(len(batch.tokens) for batch in micro_batches)
        group = self.config.model.neuron_group
        neurons = sum(len(batch.tokens) * (batch.kept or group) / group for batch in micro_batches)
        return Work(samples, sum(batch.pairs for batch in micro_batches), sum(rows), neurons)

    def _rows(self, batch: MicroBatch) -> slice | Tensor:
        """The rows that the head runs on."""
        return self.loss_rows if batch.rows is None else batch.rows

    def _whole_nll(self) -> Tensor:
        """The sum of w * nll over all context and data ranks."""
        return all_reduce_sum(self.nll.clone(), self.groups.replicas)

    # ---- helpers

    def _accumulate_over(self, micro_batches: int) -> None:
        """DeepSpeed counts micro-batches to know when a step ends; it is set anew where a batch has another size."""
        engine = self.deepspeed
        if engine.gradient_accumulation_steps() != micro_batches:
            engine.set_train_batch_size(
                engine.train_micro_batch_size_per_gpu() * self.groups.replicas.size * micro_batches
            )
            engine.micro_steps = 0
            engine.optimizer.gradient_accumulation_steps = micro_batches

    def _total_weight(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Of the whole batch, on all context and data ranks."""
        if micro_batches[0].weights is None:
            samples = sum(len(batch.tokens) * batch.share for batch in micro_batches) * self.groups.data.size
            rows = samples * (self.loss_rows.stop - self.loss_rows.start)
            return torch.full((), float(rows), device=self.groups.device)
        own = torch.stack(
            [batch.weights.sum() * batch.share for batch in micro_batches if batch.weights is not None]
        ).sum()
        return all_reduce_sum(own, self.groups.replicas)

    def _gradient_norm(self) -> Tensor:
        """Of the whole gradient, while the engine is in its step; nan where that says -1 for it."""
        if self.config.parallel.zero == 0:
            return self._norm
        norm = torch.as_tensor(self.deepspeed.optimizer._global_grad_norm, device=self.groups.device)
        return torch.where(norm < 0, torch.nan, norm)

    def _divisor(self, norm: Tensor) -> Tensor:
        """What brings a gradient of this norm down to ``optimizer.clip``, as torch's ``clip_grad_norm_`` does."""
        most = self.config.optimizer.clip
        return ((norm.float() + 1e-6) / most).clamp(min=1.0) if most else torch.ones_like(norm.float())

    def _own_norm(self) -> Tensor:
        """Stage 0 tells no norm; every data rank holds the whole, reduced gradient."""
        gradients: dict[
            tuple[int, int], list[Tensor]
        ] = {}  # by: shared out over expert ranks, over tensor ranks
        for _, parameter, record in self.parameters():
            if parameter.grad is not None:
                key = int(record.experts > 1), int(record.split)
                gradients.setdefault(key, []).append(parameter.grad)
        squares = torch.zeros(2, 2, device=self.groups.device)
        for key, listed in gradients.items():
            squares[key] = norm_of(listed).square()
        squares[1] = all_reduce_sum(squares[1].clone(), self.groups.expert)
        squares[:, 1] = all_reduce_sum(squares[:, 1].clone(), self.groups.tensor)
        return squares.sum().sqrt()


class PipelinedEngine(Engine):
    """The same over DeepSpeed's pipeline engine: its schedule (1F1B) runs all micro-batches at once."""

    def __init__(
        self, config: RunConfig, groups: Groups, deepspeed_engine: Any, heartbeat: Heartbeat | None = None
    ) -> None:
        super().__init__(config, groups, deepspeed_engine, heartbeat)
        self._head = Head.of(config.model, config.execution, TensorParallel.of(groups))
        self._flowing: tuple[int, ...] | None = None  # the shape of the micro-batches that flowed last

    @torch.no_grad()
    def evaluate(self, batch: MicroBatch) -> Tensor:
        return self._evaluated(
            batch, torch.zeros(2, device=self.groups.device), lambda loss, _: scored(loss, batch.weights)
        )

    @torch.no_grad()
    def losses(self, batch: MicroBatch) -> Tensor:
        assert batch.rows is not None
        total = torch.zeros(2, len(batch.rows), device=self.groups.device)
        return self._of_all_rows(self._evaluated(batch, total, _by_row), batch)

    def _canonical(self, name: str) -> str:
        return self.deepspeed.module.canonical(name)

    def _update(self, micro_batches: Sequence[MicroBatch], factor: Tensor | float) -> None:
        items = self._expect(micro_batches, factor, self.nll, _nll_of_share)
        self.heartbeat.enter("pipeline")
        self.deepspeed.train_batch(items)

    def _whole_nll(self) -> Tensor:
        self.nll = self._from_last_stage(self.nll.clone())
        return super()._whole_nll()

    # ---- helpers

    def _evaluated(self, batch: MicroBatch, total: Tensor, part: Part) -> Tensor:
        """``total``, zeros, with ``part`` of the loss that the last stage adds; on every stage."""
        self.heartbeat.enter("evaluating")
        items = self._expect([batch], 1.0, total, part)
        self.deepspeed.eval_batch(items, num_micro_batches=1, bcast_loss=False)
        self.deepspeed.train()
        return self._from_last_stage(total)

    def _expect(
        self, micro_batches: Sequence[MicroBatch], factor: Tensor | float, total: Tensor, part: Part
    ) -> Iterator[tuple[Tensor, tuple[()]]]:
        """Tells this stage the micro-batches to come; what the pipeline engine takes as inputs and labels.

        Only the first stage takes inputs, tokens. Labels are none: the targets stand beside the last stage's
        hidden rows. ``part`` of each micro-batch's loss is added to ``total``, there.
        """
        self._flow(micro_batches[0])
        self.deepspeed.module.expect(
            Beside(
                partial(self._loss, batch, factor, total, part),
                self._rows(batch),
                batch.seen,
                batch.positions,
                batch.kept,
            )
            for batch in micro_batches
        )
        return iter(
            [(batch.tokens[:, :-1] if batch.inputs is None else batch.inputs, ()) for batch in micro_batches]
        )

    def _flow(self, batch: MicroBatch) -> None:
        """Buffers between stages are made anew where windows of another length come."""
        shape = tuple(batch.tokens.shape)
        if self._flowing not in (None, shape):
            self.deepspeed.reset_activation_shape()
        self._flowing = shape

    def _loss(
        self,
        batch: MicroBatch,
        factor: Tensor | float,
        total: Tensor,
        part: Part,
        hidden: Tensor,
        weight: Tensor,
    ) -> Tensor:
        """What the last stage minimises."""
        targets = pick_rows(batch.tokens[:, 1:], self._rows(batch))
        z_loss = self.config.optimizer.z_loss
        loss = head_loss(self._head, hidden, weight, targets, batch.weights, z_loss)
        total += part(loss, batch)
        return loss.objective * (factor * batch.share)

    def _from_last_stage(self, value: Tensor) -> Tensor:
        """``value``, which is 0 on all stages but the last."""
        return all_reduce_sum(value, self.groups.pipeline)


def _by_row(loss: Loss, batch: MicroBatch) -> Tensor:
    """[2, k]: each row's loss, and whether the likeliest token is its target."""
    assert loss.right is not None
    return torch.stack((loss.nll, loss.right.to(loss.nll.dtype)))


def _nll_of_share(loss: Loss, batch: MicroBatch) -> Tensor:
    """The sum of w * nll that a micro-batch adds to its step's."""
    return weighted_sum(loss.nll, batch.weights) * batch.share
