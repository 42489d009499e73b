"""Scores on tasks with a right answer while a run goes on: by the engine that trains, so on any layout of ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from megarc.data import Batch, Part, Task, parts
from megarc.parallel import all_reduce_sum
from megarc.train.engine import Engine, to_tensors
from megarc.window import Window


def task_scores(engine: Engine, tasks: Sequence[Task], window: Window) -> dict[str, dict[str, float]]:
    """``Task.results`` of each task by its name; the same on every rank.

    Data ranks share the forward passes out. All run equally many batches of the training's own shape (ZeRO 3
    gathers weights in each, a pipeline's buffers stay); what fills the last ones counts nothing.
    """
    pairs = [pair for task in tasks for pair in task.pairs]
    work = [(number, part) for number, pair in enumerate(pairs) for part in parts(pair, window)]
    groups, size = engine.groups, engine.config.batch.micro_batch
    ranks, rank = groups.data.size, groups.data.rank
    # nats, tokens that are not greedy
    found = torch.zeros(2, len(pairs), dtype=torch.float64, device=groups.device)
    for first in range(0, len(work), size * ranks):
        own = range(first + rank * size, first + (rank + 1) * size)
        some = [work[place] if place < len(work) else work[0] for place in own]
        batch = _batch([part for _, part in some], window)
        losses = engine.losses(to_tensors(batch, groups.device, sharing=engine.sharing))
        losses[1] = 1 - losses[1]
        sums = [one.double().sum(1) for one in losses.split([part.scored for _, part in some], dim=1)]
        for place, (number, _), values in zip(own, some, sums, strict=True):
            if place < len(work):
                found[:, number] += values
    nats, missed = all_reduce_sum(found, groups.data).tolist()
    results, first = {}, 0
    for task in tasks:
        some_pairs = slice(first, first + len(task.pairs))
        greedy = [count == 0 for count in missed[some_pairs]]
        results[task.name] = task.results([-one for one in nats[some_pairs]], greedy)
        first += len(task.pairs)
    return results


def _batch(some: Sequence[Part], window: Window) -> Batch:
    """Windows that begin with the parts, filled up behind; weight 1 where a part is predicted."""
    tokens: npt.NDArray[np.int32] = np.zeros((len(some), window.tokens), np.int32)
    weights: npt.NDArray[np.float32] = np.zeros((len(some), window.rows), np.float32)
    for sample, part in enumerate(some):
        end = len(part.ids)
        tokens[sample, :end] = part.ids
        weights[sample, end - 1 - part.scored : end - 1] = 1.0
    return Batch(
        tokens=tokens,
        recent=np.array([part.recent for part in some], np.int32),
        samples=np.arange(len(some)),
        weights=weights,
    )
