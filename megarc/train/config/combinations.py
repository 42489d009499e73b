"""Which values of different parts go together. What was never seen right is refused, with the reason."""

from __future__ import annotations

from megarc.data import DataConfig, WindowConfig
from megarc.model.config import ModelConfig
from megarc.train.config.parallel import ParallelConfig


def check(
    model: ModelConfig, window: WindowConfig, data: DataConfig, parallel: ParallelConfig, precision: str
) -> None:
    """
    Raises:
        ValueError: where they do not; the tree of keys says where it was given.
    """
    _positions_reach(model, window)
    _packing_fits(data, model)
    _pipeline_fits(parallel, model)
    _world_fits(parallel)
    _zero_fits(parallel)
    _precision_fits(precision, parallel)


def _positions_reach(model: ModelConfig, window: WindowConfig) -> None:
    positions, rows = model.learned_positions, window.recent + window.causal
    if positions is not None and positions < rows:
        raise ValueError(f"model.learned_positions is {positions}, fewer than the window's {rows} rows")


def _packing_fits(data: DataConfig, model: ModelConfig) -> None:
    if not data.packs:
        return
    if model.learned_positions is not None:
        raise ValueError(
            f"data.packing {data.packing} with model.learned_positions is not supported: a document's positions "
            "would depend on its place in the row; use rotary positions (leave learned_positions empty)"
        )
    if data.short_recent:
        raise ValueError(
            f"data.packing {data.packing} gives each document an R of its own, so data.short_recent has no meaning; "
            "leave it out"
        )


def _pipeline_fits(parallel: ParallelConfig, model: ModelConfig) -> None:
    stages, zero = parallel.pipeline, parallel.zero
    if stages > 1 and zero != 1:
        raise ValueError(
            f"parallel.pipeline {stages} with parallel.zero {zero} is not supported: the engine's "
            "pipeline refuses 2 and 3, and at 0 it clips by a wrong norm; use parallel.zero=1"
        )
    if stages > model.layers:
        raise ValueError(
            f"parallel.pipeline {stages} is more than model.layers {model.layers}: a stage needs "
            f"a block; use at most {model.layers}"
        )


def _world_fits(parallel: ParallelConfig) -> None:
    world, data = parallel.world, parallel.data
    if world is not None and data is not None and world != parallel.tensor * parallel.pipeline * data:
        raise ValueError(
            f"parallel.world {world} is not parallel.tensor {parallel.tensor} x parallel.pipeline "
            f"{parallel.pipeline} x parallel.data {data}; leave one of them out"
        )


def _zero_fits(parallel: ParallelConfig) -> None:
    least = {"none": 0, "optimizer": 1, "all": 3}[parallel.offload]
    if parallel.zero < least:
        raise ValueError(f"parallel.offload {parallel.offload} needs parallel.zero={least} or more")
    if parallel.offload != "none" and parallel.pipeline > 1:
        raise ValueError(
            "parallel.offload with a pipeline is not supported: it was never seen right; use none"
        )
    if parallel.node is not None and parallel.zero != 3:
        raise ValueError(f"parallel.node is ZeRO++ on stage 3, and parallel.zero is {parallel.zero}; use 3")


def _precision_fits(precision: str, parallel: ParallelConfig) -> None:
    if precision == "bf16" and parallel.zero == 0:
        raise ValueError(
            "precision bf16 with parallel.zero 0 is not supported: the engine takes a stray Adam step "
            "at its start; use parallel.zero=1 (the table in docs/run.md says what works)"
        )
