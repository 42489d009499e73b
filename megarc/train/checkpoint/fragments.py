"""Where DeepSpeed 0.19.8 keeps masters and moments: its optimizers' insides, read in this file only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from megarc.model import Record
from megarc.parallel import Box, cut, size
from megarc.train.engine import Engine
from megarc.train.engine.average import NAME as AVERAGE
from megarc.train.engine.optimizer import counter, set_counters
from megarc.train.engine.places import pieces
from megarc.train.engine.sharded_optimizer import ShardedOptimizer

MOMENTS = ("exp_avg", "exp_avg_sq")
STATE = "state"  # of a buffer: neither master nor moments


@dataclass(frozen=True, slots=True)
class Fragment:
    """This rank's part of one parameter: where it lies in the full one, and views [elements] of its state."""

    name: str
    record: Record
    boxes: list[Box]
    state: dict[
        str, Tensor
    ]  # "master", "exp_avg", "exp_avg_sq": float32, views into the optimizer's buffers; or STATE


def held(engine: Engine) -> list[Fragment]:
    """All that this rank holds. With ZeRO 0 every data rank holds everything."""
    fragments = []
    for piece in pieces(engine):
        if not piece.size:
            continue
        state = {"master": piece.flat.data, **_moments(engine.optimizer, piece.flat)}
        views = {part: piece.of(buffer) for part, buffer in state.items()}
        fragments.append(Fragment(piece.name, piece.record, piece.boxes, views))
    for name, buffer, record in engine.state():
        fragments.append(Fragment(name, record, list(record.boxes), {STATE: buffer.view(-1)}))
    return fragments


def make_state(engine: Engine) -> None:
    """The moments, which otherwise come to be in the first step."""
    held(engine)


def written(engine: Engine) -> list[Fragment]:
    """What this rank writes, so that over all ranks each element stands exactly once."""
    fragments = [part for part in held(engine) if _ours_to_write(part, engine)]
    if engine.config.parallel.zero > 0:
        return fragments
    return [part for fragment in fragments if (part := _share(fragment, engine)) is not None]


def _ours_to_write(fragment: Fragment, engine: Engine) -> bool:
    """Of what several ranks hold alike, the first writes: tensor ranks, a tied embedding's stages."""
    groups = engine.groups
    if STATE in fragment.state and groups.data.rank > 0 and engine.config.parallel.zero > 0:
        return False  # with ZeRO 0 each data rank writes a share, of parameters too
    if fragment.name == "embedding.weight" and groups.pipeline.rank > 0:
        return False
    return fragment.record.split or groups.tensor.rank == 0


def set_steps(engine: Engine, steps: int) -> None:
    """Adam's step counters, for its bias correction."""
    set_counters(engine.optimizer, steps)


def _moments(adam: torch.optim.Optimizer, flat: Tensor) -> dict[str, Tensor]:
    """The moments of ``flat``, made here where no step has made them yet."""
    state = adam.state[flat]
    if isinstance(adam, ShardedOptimizer):
        adam.moments(flat)
    elif "exp_avg" not in state:
        state["step"] = counter(adam, flat.device)
        for name in MOMENTS:
            state[name] = torch.zeros_like(flat.data, dtype=torch.float32)
    return {name: state[name] for name in (*MOMENTS, AVERAGE) if name in state}


def _share(fragment: Fragment, engine: Engine) -> Fragment | None:
    """The rank-th of equal parts of a fragment that all context and data ranks hold, or all with the same experts."""
    replicas = engine.groups.expert_data if fragment.record.experts > 1 else engine.groups.replicas
    elements = size(fragment.boxes)
    start, stop = (elements * part // replicas.size for part in (replicas.rank, replicas.rank + 1))
    if start == stop:
        return None
    state = {key: value[start:stop] for key, value in fragment.state.items()}
    return Fragment(fragment.name, fragment.record, cut(fragment.boxes, start, stop), state)


def buffers(fragments: list[Fragment]) -> Iterator[tuple[str, Tensor]]:
    """``name/master`` and so on with each tensor: the keys of a rank's file."""
    for fragment in fragments:
        for part, tensor in fragment.state.items():
            yield f"{fragment.name}/{part}", tensor
