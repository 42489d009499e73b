"""What the optimizer's keys come to for one parameter, by its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from megarc.model import Record, adam_factors, muon_factors
from megarc.train.config import RunConfig


@dataclass(frozen=True, slots=True)
class Factors:
    """One parameter's own hyper-parameters.

    Attributes:
        rate: what the step's learning rate is multiplied by.
        decay: its weights shrink by learning rate * ``rate`` * ``decay`` a step.
        epsilon: added to the root of Adam's mean square.
    """

    rate: float
    decay: float
    epsilon: float


def factors_of(name: str, record: Record, config: RunConfig) -> Factors:
    """Of the parameter with this canonical name and record; ``model.parametrization`` has its say."""
    keys, own = config.optimizer, adam_factors(name, record, config.model)
    if keys.name == "muon" and record.in_block:
        own = muon_factors(config.model, keys.muon.scale == "match_adamw")
    # A matrix that writes into the residual stream is a hidden one, a bias goes with the gains; only their
    # initial values are their own.
    kind = {"residual": "hidden", "router": "hidden", "bias": "norm"}.get(record.kind, record.kind)
    return Factors(
        rate=getattr(keys.rates, kind) * own.rate,
        decay=keys.weight_decay * getattr(keys.decays, kind) * own.decay,
        epsilon=keys.epsilon * own.epsilon,
    )


class OverBatch(NamedTuple):
    """What a batch of another size makes of the optimizer's keys: beta2, and a multiplier of weight decays."""

    beta2: float
    decay: float


def over_batch(config: RunConfig, growth: float) -> OverBatch:
    """For steps of ``growth`` times ``batch.size`` samples.

    With ``tokens`` a mean square remembers as many tokens as before (beta2 to the power k), and weights shrink as much
    a token: learning rate * decay / batch stays (Wang and Aitchison 2024, 2405.13698).
    """
    batch = config.batch
    return OverBatch(
        beta2=config.optimizer.beta2 ** (growth if batch.beta2 == "tokens" else 1.0),
        decay=growth ** (1 - batch.power) if batch.decay == "tokens" else 1.0,
    )
