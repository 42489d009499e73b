"""The keys of a mixture of experts."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from megarc.config import Config, key


class ExpertsConfig(Config):
    """Feed-forwards of which each row uses a few: token-choice top-k, and no row is dropped (docs/experts.md)."""

    count: int = key(8, "experts of a layer", ge=2)
    active: int = key(2, "experts that each row uses", ge=1)
    shared: int = key(0, "more experts, of the same width, that every row uses", ge=0)
    width: int | None = key(
        None,
        "inner width of an expert; null: ffn / (active + shared), up to a multiple of 8, so that a row uses as many "
        "neurons as in a dense model",
        ge=1,
    )
    every: int = key(
        1, "layers every, 2 every, .. have experts (the first is layer 1); the others are dense", ge=1
    )
    dense_first: int = key(0, "number of first layers that stay dense", ge=0)
    scores: Literal["softmax", "sigmoid"] = key(
        "softmax", "what makes scores of the router's logits: softmax over all experts, or each for itself"
    )
    normalised: bool = key(True, "the weights of a row's experts are divided by their sum")
    scale: float = key(1.0, "factor on the weights of the routed experts", gt=0)
    balance: Literal["bias", "loss", "none"] = key(
        "bias",
        "what keeps experts equally busy. bias: added to scores when experts are chosen, changed once a step "
        "(2408.15664); loss: an auxiliary loss on each window (2101.03961)",
    )
    bias_rate: float = key(0.001, "with balance bias: the change of a bias in one step", gt=0)
    loss_weight: float = key(0.01, "with balance loss: the weight of that loss", gt=0)
    router_z_loss: float = key(
        0.0, "weight of the mean square of the router's log-sum-exp (2202.08906: 1e-3)", ge=0
    )

    @model_validator(mode="after")
    def _enough_of_them(self) -> ExpertsConfig:
        if self.active > self.count:
            raise ValueError(
                f"active is {self.active}, more than the {self.count} experts of count; use at most {self.count}"
            )
        return self

    def at(self, layer: int) -> bool:
        """Whether this layer, counted from 0, has experts."""
        return layer >= self.dense_first and (layer + 1) % self.every == 0

    @property
    def on_every_layer(self) -> ExpertsConfig:
        """The same experts, of a model of such layers alone."""
        return self.model_copy(update={"every": 1, "dense_first": 0})
