"""Closed forms against the model itself: parameters counted, FLOPs seen by torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from megarc.model import ModelConfig, Transformer, cost_of, initialise
from megarc.window import Window

SHAPES = [
    {"layers": 2, "hidden": 64, "heads": 4, "vocabulary": 300},
    {"layers": 3, "hidden": 96, "heads": 6, "kv_heads": 2, "vocabulary": 256, "tied": False},
    {"layers": 1, "hidden": 64, "heads": 2, "head_dim": 16, "ffn": 100, "vocabulary": 130, "qk_norm": True},
    {"layers": 1, "hidden": 32, "heads": 2, "vocabulary": 130, "learned_positions": 64},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters(shape):
    config = ModelConfig(**shape)
    model = Transformer(config)
    cost = cost_of(config, Window.split(4, 4))
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.embedding_parameters == sum(
        p.numel() for n, p in model.named_parameters() if n.startswith(("embedding", "positions", "head"))
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [Window.split(24, 40), Window.plain(64), Window(8, 56, 16)])
def test_flops(shape, window):
    """The reference engine computes the full square: torch must count our full-square figure."""
    from megarc.model import ExecutionConfig

    config = ModelConfig(**shape)
    model = Transformer(config, ExecutionConfig(attention="reference"))
    initialise(model, config, 0)
    tokens = torch.randint(0, config.vocabulary, (2, window.rows))
    with FlopCounterMode(
        display=False
    ) as counter:  # with gradients: scoring leaves rows of the last block out
        model.logits(tokens, window.loss_rows, window.recent)
    cost = cost_of(config, window)
    assert counter.get_total_flops() == 2 * (cost.matrix_flops + cost.head_flops + cost.full_square_flops)
    assert cost.attention_flops == cost.full_square_flops * window.pairs() // window.rows**2
