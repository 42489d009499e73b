"""What a model costs, from its configuration and the window alone: parameters and FLOPs.

A product of an [a, b] by a [b, c] matrix counts 2abc. Norms, activations and
the softmax are left out, as is usual. Backward counts twice forward;
recomputation is not useful work and is never counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from megarc.model.block_part import PartCost
from megarc.model.config import ModelConfig
from megarc.model.feed_forward import feed_forward_of
from megarc.model.mixers import mixer_of
from megarc.window import Window


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters, and FLOPs of one window forward; ``feed_forward_flops`` are a part of ``matrix_flops``."""

    parameters: int
    embedding_parameters: int
    matrix_flops: int
    feed_forward_flops: int
    head_flops: int
    attention_flops: int
    full_square_flops: int
    unused_parameters: int = 0

    @property
    def active_parameters(self) -> int:
        """Those that a row meets: all, but for experts that it does not use."""
        return self.parameters - self.unused_parameters

    @property
    def training_flops(self) -> int:
        """Forward and backward of one window, counting exactly the pairs that the mask allows."""
        return 3 * (self.matrix_flops + self.head_flops + self.attention_flops)

    @property
    def training_flops_full_square(self) -> int:
        """The same with all n * n pairs counted, the convention of many published MFUs."""
        return 3 * (self.matrix_flops + self.head_flops + self.full_square_flops)

    def of_work(self, pairs: float, loss_rows: float, width: float = 1.0, passes: float = 1.0) -> Cost:
        """Of a window with other pairs or loss rows, or a part of the feed-forwards' neurons, as shares of this one's.

        Args:
            passes: how often the window goes through the model.
        """
        narrow = self.feed_forward_flops * width
        return replace(
            self,
            matrix_flops=round((self.matrix_flops - self.feed_forward_flops + narrow) * passes),
            feed_forward_flops=round(narrow * passes),
            head_flops=round(self.head_flops * loss_rows * passes),
            attention_flops=round(self.attention_flops * pairs * passes),
            full_square_flops=round(self.full_square_flops * passes),
        )


def cost_of(config: ModelConfig, window: Window) -> Cost:
    """The cost of ``config`` on ``window``; the head runs on loss rows only."""
    hidden, layers = config.hidden, list(_by_layer(config, window))
    parts = [part for layer in layers for part in layer]
    gains = len(layers) * 2 * hidden + sum(part.gains for part in parts) + hidden
    table = config.padded_vocabulary * hidden
    embeddings = table * (1 if config.tied else 2) + hidden * (config.learned_positions or 0)
    return Cost(
        parameters=sum(part.matrices for part in parts) + gains + embeddings,
        embedding_parameters=embeddings,
        matrix_flops=sum(part.matrix_flops for part in parts),
        feed_forward_flops=sum(feed_forward.matrix_flops for _, feed_forward in layers),
        head_flops=2 * table * window.stride,
        attention_flops=sum(part.attention_flops for part in parts),
        full_square_flops=sum(part.full_square_flops for part in parts),
        unused_parameters=sum(part.unused for part in parts),
    )


def loss_work_of(config: ModelConfig) -> int:
    """What the head does for a loss row, in (query, key) pairs of all layers' attention: their FLOPs are equal."""
    of_row = 2 * config.hidden * config.padded_vocabulary
    of_pair = 4 * config.heads * config.width_of_head * config.layers
    return round(of_row / of_pair)


def block_parameters(config: ModelConfig) -> int:
    """Elements of a block's matrices."""
    return sum(part.matrices for part in _parts(config, Window.plain(1)))


def _by_layer(config: ModelConfig, window: Window) -> Iterator[tuple[PartCost, PartCost]]:
    """Of each layer, in their order; layers that are alike are counted once."""
    known: dict[tuple[str, int | None], tuple[PartCost, PartCost]] = {}
    for layer in range(config.layers):
        like = config.kind(layer), config.ffn[layer] if isinstance(config.ffn, list) else None
        if like not in known:
            known[like] = _parts(config.of_layer(layer), window)
        yield known[like]


def _parts(config: ModelConfig, window: Window) -> tuple[PartCost, PartCost]:
    """Of one layer: its mixer and its feed-forward."""
    return mixer_of(config).cost(config, window), feed_forward_of(config).cost(config, window)
