"""The run's precision as torch names it. Keys are read without torch, so it does not stand with them."""

from __future__ import annotations

import torch

from megarc.train.config import RunConfig


def dtype_of(config: RunConfig) -> torch.dtype:
    """Of weights and activations."""
    return torch.bfloat16 if config.precision == "bf16" else torch.float32
