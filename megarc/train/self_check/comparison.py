"""How far this rank's part of weights and gradients is from the same on one rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from megarc.parallel import Box
from megarc.train.checkpoint import held
from megarc.train.engine import Engine
from megarc.train.self_check.one_rank import State

TOLERANCE = {
    "fp32": {"norm": 1e-4, "gradient": 1e-4, "weight": 1e-2},
    "bf16": {"norm": 0.1, "gradient": 0.1, "weight": 0.7},
    "fp8": {"norm": 0.1, "gradient": 0.3, "weight": 0.9},
}
"""Of the root mean square of a whole parameter. On right engines of 2 ranks 5e-6 and 8e-5 were seen in fp32, .017 and
.33 in bf16, .14 and .62 where a CPU emulates fp8 products: Adam moves a weight by its gradient's sign, however small
that is, and one of a norm's 32 weights that moves the other way is .35. A weight that does not move differs by 1, and
a gradient that one of two ranks lacks by .5 and more."""

_FACTOR_CLEAR = 0.1  # a difference is a factor where that explains all but this part of it


class Difference(NamedTuple):
    """Of one parameter after one step; in units of its own size on one rank."""

    step: int
    what: str  # gradient (by Adam's first moment) or weight (by how far it has moved)
    name: str
    by: float
    factor: float | None  # this many times what one rank has, where that is the whole difference

    def describe(self) -> str:
        times = f", {self.factor:.3g} times what it must be" if self.factor is not None else ""
        return f"the {self.what} of {self.name} after step {self.step} differs by {self.by:.2g} of its size{times}"


def wrong_gradients(
    engine: Engine, states: Mapping[str, State], step: int, tolerance: str
) -> Iterator[Difference]:
    """What is beyond rounding in the first moments.

    Args:
        tolerance: a key of ``TOLERANCE``.
    """
    for fragment in held(engine):
        whole = states[fragment.name].parts["exp_avg"]
        ours, there = fragment.state["exp_avg"].view(-1).float(), _cut(whole, fragment.boxes)
        yield from _difference(
            Difference(step, "gradient", fragment.name, 0, None), whole, ours, there, tolerance
        )


def wrong_weights(
    engine: Engine, states: Mapping[str, State], step: int, tolerance: str
) -> Iterator[Difference]:
    """What is beyond rounding in how far weights have moved; arguments as of ``wrong_gradients``."""
    for fragment in held(engine):
        state = states[fragment.name]
        start, there = _cut(state.initial, fragment.boxes), _cut(state.parts["master"], fragment.boxes)
        ours = fragment.state["master"].view(-1).float() - start.to(fragment.state["master"].device)
        moved = state.parts["master"] - state.initial
        known = "fp32" if state.follows else tolerance
        found = Difference(step, "weight", fragment.name, 0, None)
        yield from _difference(found, moved, ours, there - start, known)


def _difference(
    found: Difference, whole: Tensor, ours: Tensor, there: Tensor, tolerance: str
) -> Iterator[Difference]:
    """``found`` with its size, where it is beyond rounding: ``ours`` against ``there``, in units of ``whole``."""
    scale = whole.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    by = float((ours.to(there) - there).square().mean().sqrt() / scale)
    if not by <= TOLERANCE[tolerance][found.what]:  # nan too
        yield found._replace(by=by, factor=_factor(ours.to(there), there))


def _factor(ours: Tensor, there: Tensor) -> float | None:
    square = float(there @ there)
    if not square:
        return None
    factor = float(ours @ there) / square
    left = float((ours - factor * there).norm())
    return factor if left < _FACTOR_CLEAR * float((ours - there).norm()) else None


def _cut(full: Tensor, boxes: list[Box]) -> Tensor:
    """The elements of ``boxes``, one after the other."""
    return torch.cat([full[box.top : box.bottom, box.left : box.right].reshape(-1) for box in boxes])
