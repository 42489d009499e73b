"""From a configuration to an engine: model, initial values, optimizer, DeepSpeed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from megarc.errors import UserError
from megarc.model import Transformer, build_pipeline, initial_values, no_compiler, no_fp8, record_of
from megarc.parallel import Groups, TensorParallel, cut, size
from megarc.train.config import RunConfig
from megarc.train.engine.average import Average
from megarc.train.engine.deepspeed_grid import Grid
from megarc.train.engine.deepspeed_import import import_deepspeed
from megarc.train.engine.deepspeed_settings import bucket, deepspeed_settings
from megarc.train.engine.engine import Engine, PipelinedEngine
from megarc.train.engine.expert_groups import announce_expert_ranks
from megarc.train.engine.factors import factors_of
from megarc.train.engine.optimizer import optimizer_of
from megarc.train.engine.places import pieces
from megarc.train.engine.sharded_optimizer import ShardedOptimizer
from megarc.train.heartbeat import Heartbeat

log = logging.getLogger("megarc")


def build_engine(config: RunConfig, groups: Groups, heartbeat: Heartbeat | None = None) -> Engine:
    """This rank's part of the model with initial values, its optimizer and engine.

    Args:
        config: resolved: vocabulary and micro-batch are known.
        heartbeat: where the engine says which phase it is in; None: nobody listens.
    """
    config = _compilable(config, groups).shared_among(groups.replicas.size)
    if config.execution.fp8 and (reason := no_fp8(groups.device)):
        raise UserError(f"execution.fp8 is on, but {reason}; use execution.fp8=false")
    deepspeed = import_deepspeed(groups.device)
    deepspeed.init_distributed(verbose=False)
    micro_batch = config.batch.micro_batch
    micro_batches = config.batch.size // (groups.data.size * micro_batch)
    settings = deepspeed_settings(config, micro_batch, micro_batches, groups.device.type, groups.context.size)
    tensor = TensorParallel.of(groups)
    if groups.topology.pipeline == 1:
        grid = Grid(groups)
        with _partitioned(deepspeed, config, settings, grid):
            model: nn.Module = Transformer(config.model, config.execution, tensor)
        _fill(model, config, groups, str)
        if config.model.experts is not None:
            announce_expert_ranks(model, config.model.experts.count, groups)
        if config.parallel.zero == 3 and config.execution.compile:
            _gather_by_block(deepspeed, model)
        made = _initialize(deepspeed, model, config, settings, groups, mpu=grid)
        if config.parallel.zero == 0 and groups.replicas.size == 1:
            # It would copy all gradients into one buffer, sum that over one rank, and copy them back.
            made.enable_backward_allreduce = False
        return _arranged(Engine(config, groups, made, heartbeat))
    stage = build_pipeline(config.model, config.execution, groups)
    _fill(stage, config, groups, stage.canonical)
    if config.model.experts is not None:
        announce_expert_ranks(stage, config.model.experts.count, groups)
    made = _initialize(deepspeed, stage, config, settings, groups)
    return _arranged(PipelinedEngine(config, groups, made, heartbeat))


def _arranged(engine: Engine) -> Engine:
    """The engine, once our optimizer knows what lies where in DeepSpeed's buffers, and with an average of weights."""
    optimizer = engine.optimizer
    if isinstance(optimizer, ShardedOptimizer):
        optimizer.arrange(pieces(engine), lambda piece: factors_of(piece.name, piece.record, engine.config))
    if engine.config.average.on:
        engine.average = Average(engine)
    return engine


def _compilable(config: RunConfig, groups: Groups) -> RunConfig:
    """``config``, without ``execution.compile`` where this machine has no compiler: slower, the same numbers."""
    reason = no_compiler(groups.device) if config.execution.compile else None
    if reason is None:
        if config.execution.compile and "crf" in config.model.mixers and groups.first:
            log.info("execution.compile: the chain of crf runs eagerly inside its compiled blocks")
        return config
    if groups.first:
        log.warning("execution.compile is on, but %s; the run continues without it", reason)
    execution = config.execution.model_copy(update={"compile": False})
    return config.model_copy(update={"execution": execution})


def _initialize(
    deepspeed: Any,
    model: nn.Module,
    config: RunConfig,
    settings: dict[str, Any],
    groups: Groups,
    **extra: Any,
) -> Any:
    optimizer = optimizer_of(model, config, groups)
    elements = sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())
    settings["zero_optimization"]["reduce_bucket_size"] = bucket(config, elements)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=settings, dist_init_required=False, **extra
    )
    if config.parallel.zero == 3:
        # ZeRO++ copied the weights into its node-wide shards before they had values.
        engine.optimizer.invalidate_secondary_tensor()
    return engine


@contextmanager
def _partitioned(deepspeed: Any, config: RunConfig, settings: dict[str, Any], grid: Grid) -> Iterator[None]:
    """Under ZeRO 3 parameters are split as they are made, so that no rank ever holds them all."""
    if config.parallel.zero < 3:
        yield
        return
    group = grid.get_data_parallel_group()
    # DeepSpeed keeps a closed engine's group of a node (parallel.node), and refuses to make the next one's.
    deepspeed.utils.groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
    with deepspeed.zero.Init(config_dict_or_path=settings, data_parallel_group=group, mpu=grid):
        yield


def _gather_by_block(deepspeed: Any, model: nn.Module) -> None:
    """ZeRO 3 gathers a block's weights before it and lets them go after it, not layer by layer inside.

    Its hooks are nothing that can be compiled; so none stands inside what is.
    """
    for block in model.blocks:
        deepspeed.utils.set_z3_leaf_module(block, True)


@torch.no_grad()
def _fill(model: nn.Module, config: RunConfig, groups: Groups, canonical: Callable[[str], str]) -> None:
    """Initial values, of what this rank holds."""
    for own_name, parameter in model.named_parameters():
        name, record = canonical(own_name), record_of(parameter)
        piece = getattr(parameter, "ds_tensor", None)
        if piece is None:
            values = initial_values(name, record, config.model, config.seed, record.boxes)
            parameter.copy_(values.view(parameter.shape))
            continue
        # Under ZeRO 3 the data ranks hold equal consecutive pieces; the last may reach beyond the end.
        start = piece.numel() * groups.replicas.rank
        boxes = cut(record.boxes, start, start + piece.numel())
        piece.zero_()
        values = initial_values(name, record, config.model, config.seed, boxes)
        piece.view(-1)[: size(boxes)] = values.to(piece)
