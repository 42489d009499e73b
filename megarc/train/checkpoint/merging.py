"""Checkpoints of one run averaged to one model, so that it can be read off without a decay of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from megarc.errors import UserError
from megarc.train.checkpoint.layout import Checkpoint
from megarc.train.checkpoint.load import full_masters
from megarc.train.checkpoint.trained_model import run_config

Shape = Literal["linear", "cosine", "sqrt"]
SHAPES = get_args(Shape)


def decay_weights(count: int, shape: Shape) -> list[float]:
    """Weights of ``count`` checkpoints, oldest first, whose mean stands for a decay of the learning rate over them.

    The difference of two neighbours is what was learned between them. A decay would have taken w(1/count),
    w(2/count), .. of the differences, where w falls from 1 to 0; what is left of each checkpoint is the difference of
    neighbouring w (WSM, Tian et al. 2025, 2507.17634, section 3). ``linear`` gives the plain mean.
    """
    falls: dict[Shape, Callable[[float], float]] = {
        "linear": lambda x: 1 - x,
        "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
        "sqrt": lambda x: 1 - math.sqrt(x),
    }
    kept = [falls[shape](place / count) for place in range(count + 1)]
    return [kept[place] - kept[place + 1] for place in range(count)]


def merged(
    checkpoints: Sequence[Checkpoint], weights: Sequence[float], *, average: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Each parameter's canonical name and weighted mean, float32 1-D; in memory one at a time.

    Args:
        weights: of the checkpoints; their sum is brought to 1.
        average: of the average that each run kept, instead of its weights.

    Raises:
        UserError: where there are fewer than two checkpoints or not a weight for each, their sum is no positive
            number, or they are of different models.
    """
    if len(checkpoints) < 2:
        raise UserError(
            f"a merge takes two checkpoints or more, and there is {len(checkpoints)}; give others too"
        )
    if len(weights) != len(checkpoints):
        raise UserError(f"{len(weights)} weights for {len(checkpoints)} checkpoints: give one for each")
    total = math.fsum(weights)
    if not (math.isfinite(total) and total > 0):
        raise UserError(
            f"the weights {', '.join(map(str, weights))} add up to {total}; their sum must be above 0"
        )
    _check_same_model(checkpoints)
    return _means(checkpoints, [weight / total for weight in weights], average)


def _means(
    checkpoints: Sequence[Checkpoint], shares: Sequence[float], average: bool
) -> Iterator[tuple[str, Tensor]]:
    streams = [full_masters(checkpoint, average=average) for checkpoint in checkpoints]
    order: dict[str, None] = dict.fromkeys(checkpoints[0].fragments())
    rest = [_by_name(stream) for stream in streams]
    for name in order:
        mean = torch.zeros(())
        for find, share in zip(rest, shares, strict=True):
            mean = mean + find(name) * share
        yield name, mean


def _by_name(stream: Iterator[tuple[str, Tensor]]) -> Callable[[str], Tensor]:
    """Finds a parameter in a stream; those that come before it are kept until they are asked for."""
    waiting: dict[str, Tensor] = {}

    def find(name: str) -> Tensor:
        while name not in waiting:
            found, values = next(stream)
            waiting[found] = values
        return waiting.pop(name)

    return find


def _check_same_model(checkpoints: Sequence[Checkpoint]) -> None:
    first, *others = checkpoints
    for other in others:
        if run_config(other).model != run_config(first).model:
            raise UserError(
                f"{other.folder} is of another model than {first.folder}; a merge takes checkpoints of one run, or of "
                "runs that began from one"
            )
        if (other.standing.tokenizer or first.standing.tokenizer) != first.standing.tokenizer:
            raise UserError(f"{other.folder} was trained with another tokenizer than {first.folder}")
