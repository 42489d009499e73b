"""The small record that each parameter carries: what it is, whatever rank holds which part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

Kind = Literal["embedding", "hidden", "residual", "readout", "norm"]


@dataclass(frozen=True, slots=True)
class Record:
    """Full (unsharded) shape and kind of one parameter.

    ``residual`` is a matrix that writes into the residual stream. Initial
    values, weight decay, learning rates, norms and checkpoints read this.
    """

    shape: tuple[int, ...]
    kind: Kind

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: to matrices, not to gains."""
        return self.kind != "norm"


def attach(parameter: nn.Parameter, kind: Kind) -> nn.Parameter:
    """Gives ``parameter`` its record."""
    parameter.record = Record(tuple(parameter.shape), kind)
    return parameter


def record_of(parameter: nn.Parameter) -> Record:
    """The record of a parameter of ours."""
    return parameter.record
