"""One optimizer step, on DeepSpeed's engine."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from megarc.model import Record, Transformer, initial_values, record_of, weighted_sum
from megarc.parallel import Groups, TensorParallel, all_reduce_sum, cut, size
from megarc.train.config import RunConfig
from megarc.train.feed import MicroBatch
from megarc.train.grid import Grid
from megarc.train.optimizer import adamw
from megarc.train.settings import deepspeed_settings


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did. Tensors stay on the device: reading one waits for the step.

    Attributes:
        loss: mean negative log-likelihood of the whole batch, in nats a predicted token.
        gradient_norm: of the whole gradient, before clipping.
    """

    loss: Tensor
    gradient_norm: Tensor
    learning_rate: float


class Engine:
    """The model, its optimizer and their shards on this rank.

    Build it with ``build_engine``. ``model`` may be called for evaluation on
    all ranks together (under ZeRO 3 each forward pass gathers weights).
    """

    def __init__(self, config: RunConfig, groups: Groups, deepspeed_engine: Any) -> None:
        self.config, self.groups = config, groups
        self.deepspeed = deepspeed_engine
        self.loss_rows = config.window.build().loss_rows

    @property
    def model(self) -> nn.Module:
        """The engine as a module: calling it runs the model with its hooks."""
        return self.deepspeed

    def parameters(self) -> Iterator[tuple[str, nn.Parameter, Record]]:
        """Canonical name, parameter and record, in a fixed order."""
        for name, parameter in self.deepspeed.module.named_parameters():
            yield name, parameter, record_of(parameter)

    def step(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> StepResult:
        """Forward and backward of this rank's micro-batches, then one update.

        The loss is ``sum(w * nll) / W``, W over the whole batch; DeepSpeed
        averages over ranks and micro-batches, so each hands it its share of
        the sum times their number.
        """
        total = self._total_weight(micro_batches)
        copies = self.groups.data.size * len(micro_batches)
        nll = torch.zeros((), device=self.groups.device)
        for batch in micro_batches:
            rows = self.model(batch.tokens, self.loss_rows, batch.recent, batch.documents)
            objective = weighted_sum(rows, batch.weights, self.config.optimizer.z_loss)
            nll += weighted_sum(rows, batch.weights, 0.0).detach()
            self.deepspeed.backward(objective * (copies / total))
            if batch is not micro_batches[-1]:
                self.deepspeed.step()  # between micro-batches this only counts
        norm = self._own_norm() if self.config.parallel.zero == 0 else None
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        self.deepspeed.step()
        if norm is None:
            norm = torch.as_tensor(self.deepspeed.get_global_grad_norm(), device=self.groups.device)
        return StepResult(all_reduce_sum(nll, self.groups.data) / total, norm, learning_rate)

    def close(self) -> None:
        """Lets the engine's buffers and hooks go."""
        self.deepspeed.destroy()

    def _total_weight(self, micro_batches: Sequence[MicroBatch]) -> Tensor | float:
        if micro_batches[0].weights is None:
            samples = sum(len(batch.tokens) for batch in micro_batches) * self.groups.data.size
            return float(samples * (self.loss_rows.stop - self.loss_rows.start))
        own = torch.stack([batch.weights.sum() for batch in micro_batches if batch.weights is not None]).sum()
        return all_reduce_sum(own, self.groups.data)

    def _own_norm(self) -> Tensor:
        """Stage 0 tells no norm; every data rank holds the whole, reduced gradient."""
        squares = torch.zeros(2, device=self.groups.device)
        for _, parameter, record in self.parameters():
            if parameter.grad is not None:
                squares[int(record.split)] += parameter.grad.square().sum()
        squares[1:] = all_reduce_sum(squares[1:].clone(), self.groups.tensor)
        return squares.sum().sqrt()


def build_engine(config: RunConfig, groups: Groups, micro_batch: int) -> Engine:
    """Model with initial values, optimizer and engine on this rank; ``micro_batch`` in samples."""
    deepspeed = _import_deepspeed(groups.device)
    micro_batches = config.batch.size // (groups.data.size * micro_batch)
    settings = deepspeed_settings(config, micro_batch, micro_batches)
    tensor, grid = TensorParallel(groups.tensor, groups.topology.sequence), Grid(groups)
    with _partitioned(deepspeed, config, settings, grid):
        model = Transformer(config.model, config.execution, tensor)
    _fill(model, config, groups)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=adamw(model, config.optimizer),
        config=settings,
        mpu=grid,
        dist_init_required=False,
    )
    return Engine(config, groups, engine)


def _import_deepspeed(device: torch.device) -> Any:
    # DeepSpeed reads these at import and at start, also in a process that no launcher started.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", "0")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Its calls of torch functions that were renamed: nothing that a user could change.
    warnings.filterwarnings("ignore", r".*torch\.distributed\..* is deprecated", FutureWarning)
    import deepspeed
    import deepspeed.ops

    if device.type == "cpu":
        # Its shared-memory extension would be compiled at first use: minutes, and a lock that can hang.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(verbose=False)
    return deepspeed


@contextmanager
def _partitioned(deepspeed: Any, config: RunConfig, settings: dict[str, Any], grid: Grid) -> Iterator[None]:
    """Under ZeRO 3 parameters are split as they are made, so that no rank ever holds them all."""
    if config.parallel.zero < 3:
        yield
        return
    group = grid.get_data_parallel_group()
    with deepspeed.zero.Init(config_dict_or_path=settings, data_parallel_group=group, mpu=grid):
        yield


@torch.no_grad()
def _fill(model: nn.Module, config: RunConfig, groups: Groups) -> None:
    """Initial values, of what this rank holds."""
    for name, parameter in model.named_parameters():
        record = record_of(parameter)
        piece = getattr(parameter, "ds_tensor", None)
        if piece is None:
            values = initial_values(name, record, config.model, config.seed, record.boxes)
            parameter.copy_(values.view(parameter.shape))
            continue
        # Under ZeRO 3 the data ranks hold equal consecutive pieces; the last may reach beyond the end.
        start = piece.numel() * groups.data.rank
        boxes = cut(record.boxes, start, start + piece.numel())
        piece.zero_()
        values = initial_values(name, record, config.model, config.seed, boxes)
        piece.view(-1)[: size(boxes)] = values.to(piece)
