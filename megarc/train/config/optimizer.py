"""The keys of the optimizer and of the loss's extras."""

from __future__ import annotations

from typing import Literal

from megarc.config import Config, key


class OptimizerConfig(Config):
    """AdamW (Loshchilov and Hutter 2019, 1711.05101) on float32 masters."""

    library: Literal["torch", "apex", "deepspeed"] = key(
        "torch",
        "whose AdamW: torch's fused one; apex's where installed; DeepSpeed's, compiled at first use (minutes)",
        circumstance=True,
    )
    lr: float = key(1e-3, "peak learning rate", gt=0)
    beta1: float = key(0.9, "decay of the gradient's mean", ge=0, lt=1)
    beta2: float = key(0.95, "decay of the gradient's mean square", ge=0, lt=1)
    epsilon: float = key(1e-8, "added to the root of the mean square", gt=0)
    weight_decay: float = key(0.1, "on matrices and embeddings, not on norms' gains", ge=0)
    clip: float = key(1.0, "largest gradient norm; 0: no clipping", ge=0)
    z_loss: float = key(0.0, "weight of log_z^2 beside each row's loss (PaLM: 1e-4)", ge=0)
