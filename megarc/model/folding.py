"""A model of muP or CompleteP as a standard one: its scales go into its weights, and its logits stay what they are.

A scale that is a power of two, as of a width that is a power-of-two multiple of its base's, changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from megarc.model.config import ModelConfig
from megarc.model.parametrization import branch_scale, output_scale, query_scale

Fold = Callable[[str, Tensor], Tensor]
"""(canonical name, values) -> the values in the other model."""


def as_standard(config: ModelConfig) -> tuple[ModelConfig, Fold]:
    """The configuration of the standard model that computes the same, and what becomes of each parameter."""
    queries = (
        ["attention.query_norm.weight"]
        if config.qk_norm
        else ["attention.query.weight", "attention.query.bias"]
    )
    branches = ["attention.out.weight", "attention.out.bias", "feed_forward.down.weight"]
    branches.append("feed_forward.shared_down.weight")
    if config.norm_place == "after":
        branches = ["attention_norm.weight", "feed_forward_norm.weight"]
    scales = dict.fromkeys(queries, query_scale(config)) | dict.fromkeys(branches, branch_scale(config))

    def fold(name: str, values: Tensor) -> Tensor:
        rest = name.split(".", 2)[-1] if name.startswith("blocks.") else name
        scale = output_scale(config) if name == "norm.weight" else scales.get(rest, 1.0)
        return values if scale == 1.0 else values * scale

    bare = {"base_hidden": None, "base_layers": None, "base_head_dim": None}
    return config.model_copy(update={"parametrization": "standard", **bare}), fold
