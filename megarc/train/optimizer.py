"""AdamW over two groups of parameters: those that decay and those that do not."""

from __future__ import annotations

import torch
from torch import nn

from megarc.model import record_of
from megarc.train.config import OptimizerConfig


def adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """torch's fused AdamW; the learning rate is set anew before each step."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if record_of(p).decays], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if not record_of(p).decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True
    )
