"""What a model costs, from its configuration and the window alone: parameters and FLOPs.

A product of an [a, b] by a [b, c] matrix counts 2abc. Norms, activations and
the softmax are left out, as is usual. Backward counts twice forward;
recomputation is not useful work and is never counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from megarc.model.config import ModelConfig
from megarc.window import Window


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters, and FLOPs of one window forward."""

    parameters: int
    embedding_parameters: int
    matrix_flops: int
    head_flops: int
    attention_flops: int
    full_square_flops: int

    @property
    def training_flops(self) -> int:
        """Forward and backward of one window, counting exactly the pairs that the mask allows."""
        return 3 * (self.matrix_flops + self.head_flops + self.attention_flops)

    @property
    def training_flops_full_square(self) -> int:
        """The same with all n * n pairs counted, the convention of many published MFUs."""
        return 3 * (self.matrix_flops + self.head_flops + self.full_square_flops)


def cost_of(config: ModelConfig, window: Window) -> Cost:
    """The cost of ``config`` on ``window``; the head runs on loss rows only."""
    hidden, heads, width = config.hidden, config.heads, config.width_of_head
    matrices = config.layers * block_parameters(config)
    norms = (2 * config.layers + 1) * hidden + (2 * config.layers * width if config.qk_norm else 0)
    table = config.padded_vocabulary * hidden
    embeddings = table * (1 if config.tied else 2) + hidden * (config.learned_positions or 0)
    return Cost(
        parameters=matrices + norms + embeddings,
        embedding_parameters=embeddings,
        matrix_flops=2 * matrices * window.rows,
        head_flops=2 * table * window.stride,
        attention_flops=config.layers * window.attention_flops(heads, width),
        full_square_flops=config.layers * 4 * heads * width * window.rows**2,
    )


def block_parameters(config: ModelConfig) -> int:
    """Elements of a block's matrices: queries, keys and values, out; gate and up, down."""
    attention = 2 * config.hidden * config.width_of_head * (config.heads + config.groups)
    return attention + 3 * config.hidden * config.width_of_ffn
