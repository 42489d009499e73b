"""The tiny run of the self-check: the layout, precision and engine of the real one, a model of seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from megarc.config import build, to_dict
from megarc.data import Batch
from megarc.model import Transformer
from megarc.parallel import Topology
from megarc.train.config import RunConfig
from megarc.train.engine import MicroBatch, RowSharing, to_tensors

MICRO_BATCHES = 2  # of a step and data rank, so that accumulation takes part
RATE = 1e-3  # small beside the weights, so that rounding in the first step stays rounding in the second
CLIP = 0.01  # far below any gradient norm of this model
_HEADS, _HEAD_DIM, _VOCABULARY, _ROWS, _SEED = 4, 8, 64, 8, 20


def tiny_run(config: RunConfig, topology: Topology) -> RunConfig:
    """``config`` with a tiny model, window and batch that every layout can split.

    Whatever decides how gradients are reduced and clipped stays: layout, ZeRO stage, offloading, precision,
    recomputation, AdamW's library, Muon and what is passed to DeepSpeed.

    Raises:
        UserError: where the layout needs a part that the tiny model lacks.
    """
    # Multiples of the tensor ranks, which share out heads and, with parallel.sequence, the rows of a context rank.
    heads = _multiple(_HEADS, topology.tensor)
    rows = _multiple(_ROWS, topology.tensor * topology.context)
    hidden = _HEAD_DIM * heads
    execution, keys = config.execution, config.optimizer
    # In bf16 rounding sends rows to other experts on other layouts, so the tiny model has none.
    routes = config.model.experts is not None and config.precision == "fp32"
    mixers = list(dict.fromkeys(config.model.mixers))
    layers = max(2, topology.pipeline)
    tree: dict[str, Any] = {
        "device": config.device,
        "precision": config.precision,
        "parallel": to_dict(config.parallel) | ({} if routes else {"expert": 1}),
        "deepspeed": config.deepspeed,
        "window": {"recent": rows, "causal": rows},
        "model": {
            "layers": -(-layers // len(mixers)) * len(mixers),
            "mixers": mixers,
            "hidden": hidden,
            "heads": heads,
            "ffn": 2 * hidden,
            "vocabulary": _VOCABULARY,
            "vocabulary_multiple": 8 * topology.tensor,
            "tied": config.model.tied,
            "experts": _experts(config.parallel.expert, hidden) if routes else None,
        },
        "batch": {"size": MICRO_BATCHES * topology.data, "micro": 1},
        "optimizer": {"library": keys.library, "z_loss": keys.z_loss, "clip": 0.0, **_muon(config)},
        "execution": {
            "recompute": execution.recompute,
            "recompute_every": execution.recompute_every,
            "fp8": execution.fp8 and not _recurrent(config),
            "fp8_scales": execution.fp8_scales,
        },
    }
    tiny = build(RunConfig, tree, "the self-check")
    return build(RunConfig, {**tree, "deepspeed": _in_buckets(tiny)}, "the self-check")


def _multiple(least: int, parts: int) -> int:
    return -(-least // parts) * parts


def _experts(ranks: int, hidden: int) -> dict[str, Any]:
    """Keys of experts that so many ranks share out; without a balance, which the one rank beside them does not have."""
    return {"count": 2 * ranks, "active": 2, "width": hidden, "balance": "none"}


def uncovered(config: RunConfig, device: torch.device) -> list[str]:
    """What the run has and the tiny one lacks, so that the check says nothing of it."""
    in_bf16 = {"auto": device.type == "cuda", "bf16": True, "fp32": False}[config.optimizer.muon.precision]
    parts = {
        "Muon's update (only without experts)": config.optimizer.name == "muon" and not _muon(config),
        "Muon's iteration in bf16": bool(_muon(config)) and in_bf16,
        "experts (only in fp32)": config.model.experts is not None and config.precision != "fp32",
        "compiled blocks": config.execution.compile,
        "fp8 products of models with recurrent layers": config.execution.fp8 and _recurrent(config),
    }
    return [name for name, there in parts.items() if there]


def _recurrent(config: RunConfig) -> bool:
    """In fp8, gradients of a right engine's decays differ by .33 of their size from one rank's, like a wrong one's."""
    return set(config.model.mixers) != {"attention"}


def _muon(config: RunConfig) -> dict[str, Any]:
    keys = config.optimizer
    if keys.name != "muon" or config.model.experts is not None:
        return {}
    return {"name": "muon", "muon": {**to_dict(keys.muon), "precision": "fp32"}}


def clipping(tiny: RunConfig) -> RunConfig:
    """The same run, its gradients clipped far below their norm."""
    return tiny.model_copy(update={"optimizer": tiny.optimizer.model_copy(update={"clip": CLIP})})


def samples(tiny: RunConfig, step: int) -> Tensor:
    """The tokens [batch, rows + 1] of a step, the same on every rank."""
    window, size = tiny.window.build(), tiny.batch.size
    drawn = np.random.default_rng([_SEED, step]).integers(0, _VOCABULARY, (size, window.rows + 1))
    return torch.as_tensor(drawn)


def micro_batch(
    tokens: Tensor, tiny: RunConfig, device: torch.device, sharing: RowSharing | None = None
) -> MicroBatch:
    """``tokens`` [b, rows + 1] as the engine takes them, all rows or those of a context rank."""
    recent: npt.NDArray[np.int32] = np.full(len(tokens), tiny.window.recent, dtype=np.int32)
    batch = Batch(tokens.numpy(), recent, np.arange(len(tokens), dtype=np.int64))
    return to_tensors(batch, device, sharing=sharing)


def _in_buckets(tiny: RunConfig) -> dict[str, Any]:
    """``deepspeed:`` with buckets that hold a third of the model: a real run fills several, too."""
    if tiny.parallel.zero == 0:
        return tiny.deepspeed
    with torch.device("meta"):
        sizes = [one.numel() for one in Transformer(tiny.model).parameters()]
    zero = {**tiny.deepspeed.get("zero_optimization", {}), "reduce_bucket_size": max(*sizes, sum(sizes) // 3)}
    return {**tiny.deepspeed, "zero_optimization": zero}
