"""Where DeepSpeed 0.19.8 keeps masters and moments: its optimizers' insides, read in this file only."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
    # "master", "exp_avg", "exp_avg_sq": float32, views into the optimizer's buffers; or STATE
    state: dict[str, Tensor]


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


def written(engine: Engine, among: Collection[int]) -> list[Fragment]:
    """What this rank writes, so that each element that any of ``among`` holds stands exactly once.

    Args:
        among: the ranks that write into one folder: all, or, where each host has a folder, those of this host, which
            must find there all that they need.
    """
    rank, topology = engine.groups.world.rank, engine.groups.topology
    stages, tensor = topology.members("pipeline", rank), topology.members("tensor", rank)
    replicas = [one for one in topology.same_weights(rank) if one in among]
    data, experts = topology.members("data", rank), engine.groups.expert.size
    same_experts = [one for one in data[engine.groups.data.rank % experts :: experts] if one in among]
    # Of what several ranks hold alike, the first writes: a tied embedding's stages, tensor ranks.
    first_stage = stages[0] == rank or stages[0] not in among
    first_tensor = next(one for one in tensor if one in among) == rank
    fragments = [
        part
        for part in held(engine)
        if (first_stage or part.name != "embedding.weight") and (first_tensor or part.record.split)
    ]
    if engine.config.parallel.zero > 0:  # ZeRO shares out all but the state of buffers
        return [part for part in fragments if STATE not in part.state or replicas[0] == rank]
    alike = [same_experts if part.record.experts > 1 else replicas for part in fragments]
    shares = map(lambda part, ranks: _share(part, ranks.index(rank), len(ranks)), fragments, alike)
    return [part for part in shares if part is not None]


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


def _share(fragment: Fragment, number: int, count: int) -> Fragment | None:
    """The part of this number, of ``count`` equal ones, of a fragment that others hold alike."""
    elements = size(fragment.boxes)
    start, stop = (elements * part // count for part in (number, number + 1))
    if start == stop:
        return None
    return _elements(fragment, start, stop)


def _elements(fragment: Fragment, start: int, stop: int) -> Fragment:
    state = {key: value[start:stop] for key, value in fragment.state.items()}
    return Fragment(fragment.name, fragment.record, cut(fragment.boxes, start, stop), state)


def divided(fragments: list[Fragment], count: int) -> list[list[Fragment]]:
    """The same in ``count`` lists of about equally many bytes; a fragment is cut where a border lies in it."""
    lists: list[list[Fragment]] = [[] for _ in range(count)]
    widths = [sum(tensor.itemsize for tensor in one.state.values()) for one in fragments]
    total = sum(size(one.boxes) * width for one, width in zip(fragments, widths, strict=True))
    before = 0
    for fragment, width in zip(fragments, widths, strict=True):
        elements = size(fragment.boxes)
        borders = [(total * number // count - before) // width for number in range(count + 1)]
        begins = [min(max(border, 0), elements) for border in borders]
        for found, start, stop in zip(lists, begins, begins[1:], strict=False):
            if start < stop:
                found.append(_elements(fragment, start, stop))
        before += elements * width
    return lists


def buffers(fragments: list[Fragment]) -> Iterator[tuple[str, Tensor]]:
    """``name/master`` and so on with each tensor: the keys of a rank's file."""
    for fragment in fragments:
        for part, tensor in fragment.state.items():
            yield f"{fragment.name}/{part}", tensor
