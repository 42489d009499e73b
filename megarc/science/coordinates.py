"""Coordinate check (Yang et al. 2022, 2203.03466, appendix D.1): how large activations are, over widths and depths.

In a parametrization under which learning rates transfer, the mean |activation| of every layer after a few steps does
not depend on the width, and under CompleteP not on the depth either. Its slope, in logarithms, is about 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from megarc.config import overlaid
from megarc.data import Maker
from megarc.errors import UserError
from megarc.model import ModelConfig, Transformer
from megarc.parallel import Groups
from megarc.science.short_training import short_training
from megarc.train import RunConfig

_ROWS = 64  # of each micro-batch, whose logits are computed once more to be looked at

LAYERS = ("embedding", "attention", "feed_forward", "stream", "logits")
"""What is looked at: the embedding's rows, what the last block's parts add (before their scale), the residual stream
behind the last block, and the logits."""


class Coordinate(NamedTuple):
    """The mean |activation| of a layer in the forward pass of a step; step 0 has the initial weights."""

    width: int
    depth: int
    layer: str
    step: int
    size: float


def shapes_of(
    config: RunConfig, parametrization: str, widths: Sequence[int], depths: Sequence[int]
) -> list[RunConfig]:
    """``config`` at each width (at the first depth), then at each depth (at the first width), whose base is the first.

    Heads keep their width and the share of them that is causal, and the feed-forward (experts too) its ratio to
    ``hidden``.

    Raises:
        UserError: where a width is not a multiple of the head's.
    """
    head, ratio = config.model.width_of_head, config.model.width_of_ffn / config.model.hidden
    for width in widths:
        if width % head:
            raise UserError(
                f"--widths {width} is not a multiple of the head's width {head}; use one, or set model.head_dim"
            )
    pairs = [(width, depths[0]) for width in widths] + [(widths[0], depth) for depth in depths[1:]]
    return [
        overlaid(config, {"model": {
            "hidden": width, "layers": depth, "heads": width // head, "kv_heads": None, "head_dim": head,
            "causal_heads": round(config.model.causal_heads * (width // head) / config.model.heads),
            "ffn": round(width * ratio), "parametrization": parametrization,
            "base_hidden": widths[0], "base_layers": depths[0], **_experts(config.model, width),
        }}, "coordinate check")
        for width, depth in pairs
    ]  # fmt: skip


def _experts(model: ModelConfig, hidden: int) -> dict[str, Any]:
    """Where experts have a width of their own, the keys that keep its ratio."""
    if model.experts is None or model.experts.width is None:
        return {}
    return {"experts": {"width": round(model.experts.width * hidden / model.hidden)}}


def coordinates(
    config: RunConfig, groups: Groups, steps: int, makers: Mapping[str, Maker] | None = None
) -> list[Coordinate]:
    """Trains ``steps`` steps, and looks at the activations of each and of the forward pass that follows."""
    width, depth = config.model.hidden, config.model.layers
    found: list[Coordinate] = []
    with short_training(config, groups, makers) as training:
        module = training.engine.deepspeed.module
        with _watched(module) as sizes:
            for step, _ in enumerate(training.steps(steps + 1)):
                found += [
                    Coordinate(width, depth, layer, step, sum(seen) / len(seen))
                    for layer, seen in sizes.items()
                ]
                sizes.clear()
    return found


def slopes(found: Sequence[Coordinate], step: int, over: Callable[[Coordinate], int]) -> dict[str, float]:
    """Of each layer at ``step``: how log mean |activation| grows with the log of ``over``; the least squares' slope."""
    by_layer: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        if one.step == step and one.size > 0 and math.isfinite(one.size):
            by_layer.setdefault(one.layer, []).append((math.log(over(one)), math.log(one.size)))
    return {
        layer: float(np.polyfit([x for x, _ in points], [y for _, y in points], 1)[0])
        for layer, points in by_layer.items()
        if len({across for across, _ in points}) > 1
    }


@contextmanager
def _watched(model: Transformer) -> Iterator[dict[str, list[float]]]:
    """Means by layer of the forward passes in the block."""
    sizes: dict[str, list[float]] = {}

    def look(layer: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def see(module: nn.Module, given: Any, made: Tensor) -> None:
            if layer == "logits":
                rows = made.detach().reshape(-1, made.shape[-1])[:_ROWS]
                made = rows @ model._table().detach().T
            sizes.setdefault(layer, []).append(float(made.detach().abs().mean()))

        return see

    last = model.blocks[-1]
    places = (model.embedding, last.attention, last.feed_forward, last, model.norm)
    handles = [place.register_forward_hook(look(layer)) for layer, place in zip(LAYERS, places, strict=True)]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
