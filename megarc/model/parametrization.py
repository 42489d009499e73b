"""What changes with width and depth so that the best learning rate does not: muP and CompleteP.

With m = hidden / base_hidden and l = layers / base_layers, both of the whole model, never of a rank's shard:

    Adam            standard deviation   rate     decay   epsilon             forward
    embedding       s                    n        d       e / m               -
    hidden matrix   s / sqrt m           n / m    d m     e / (m l)           branch / l; queries * sqrt(b) / d_head
    readout (tied   s                    n        d       e / m               hidden rows / m
      or not)
    gain            1                    n        -       e / m, in blocks    -
                                                          e / (m l)

muP (Yang et al. 2022, 2203.03466, table 8) has l = 1; CompleteP (Dey et al. 2025, 2505.01618, table 1 with
alpha = 1) has both. b is the width of a base model's head. Matrices that write into the residual stream have a
standard deviation smaller by sqrt(2 layers), under CompleteP by sqrt(2 base_layers). At the base widths all of
this is the standard parametrization. Under Muon a block's matrix has ``muon_factors``.
"""

from __future__ import annotations

from typing import NamedTuple

from megarc.model.config import ModelConfig
from megarc.model.parameter_record import Kind, Record

_OF_A_BLOCK = "blocks."
_HIDDEN: tuple[Kind, ...] = ("hidden", "residual", "router")


class Factors(NamedTuple):
    """What the optimizer's keys are multiplied by, for one parameter."""

    rate: float = 1.0
    decay: float = 1.0
    epsilon: float = 1.0


def width_ratio(config: ModelConfig) -> float:
    """m, the model's width over that of its base; 1 in the standard parametrization."""
    if config.parametrization == "standard":
        return 1.0
    assert config.base_hidden is not None, "the configuration was checked"
    return config.hidden / config.base_hidden


def depth_ratio(config: ModelConfig) -> float:
    """l, the model's depth over that of its base; 1 but under CompleteP."""
    if config.parametrization != "completep":
        return 1.0
    assert config.base_layers is not None, "the configuration was checked"
    return config.layers / config.base_layers


def initial_std(kind: Kind, config: ModelConfig) -> float:
    """Standard deviation of the initial values of a matrix."""
    std = config.initial_std
    if kind in _HIDDEN:
        std /= width_ratio(config) ** 0.5
    if kind == "residual":
        std /= (2 * config.layers / depth_ratio(config)) ** 0.5
    return std


def adam_factors(name: str, record: Record, config: ModelConfig) -> Factors:
    """Of the parameter with this canonical name, under AdamW."""
    width = width_ratio(config)
    rate = 1 / width if record.kind in _HIDDEN else 1.0
    depth = depth_ratio(config) if name.startswith(_OF_A_BLOCK) else 1.0
    return Factors(rate, 1 / rate, 1 / (width * depth))


def muon_factors(config: ModelConfig, matches_adam: bool) -> Factors:
    """Of a block's matrix under Muon.

    What counts is the spectral norm of an update, which must not grow with the width (Yang et al. 2023,
    2310.17813). An orthogonal matrix has 1; scaled to the size of AdamW's updates it grows as the root of the width.
    """
    rate = width_ratio(config) ** -0.5 if matches_adam else 1.0
    return Factors(rate, 1 / rate)


def branch_scale(config: ModelConfig) -> float:
    """What a block's mixer and feed-forward are multiplied by before they are added to the residual stream."""
    return 1 / depth_ratio(config)


def output_scale(config: ModelConfig) -> float:
    """What the hidden rows are multiplied by before the head."""
    return 1 / width_ratio(config)


def forward_scales(config: ModelConfig) -> tuple[float, float, float]:
    """All three of the model's: branches, rows before the head, queries."""
    return branch_scale(config), output_scale(config), query_scale(config)


def query_scale(config: ModelConfig) -> float:
    """What queries are multiplied by, beside attention's own 1 / sqrt(head_dim)."""
    if config.parametrization == "standard" or config.base_head_dim is None:
        return 1.0
    return (config.base_head_dim / config.width_of_head) ** 0.5
