"""Exact cross-entropy of a text, walked by overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from megarc.errors import UserError
from megarc.model import Transformer
from megarc.window import Window

Tokens: TypeAlias = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Score:
    """Cross-entropy over ``tokens`` targets.

    Attributes:
        nats_per_token: mean negative log-likelihood.
        standard_error: of that mean, from the windows' means as if they were independent.
        bytes_per_token: of the text scored; None where unknown.
    """

    nats_per_token: float
    standard_error: float
    tokens: int
    bytes_per_token: float | None = None

    @property
    def bits_per_token(self) -> float:
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_byte(self) -> float | None:
        return None if self.bytes_per_token is None else self.bits_per_token / self.bytes_per_token


def evaluate(
    model: Transformer,
    tokens: Tokens,
    window: Window,
    targets: range,
    *,
    batch: int = 16,
    bytes_per_token: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Score:
    """Scores the targets ``tokens[targets]``, each once, with as much context as ``window`` gives.

    Models with different windows are comparable where ``targets`` is the same:
    each target lies on a loss row, so it has seen at least ``n - s + 1`` tokens.

    Args:
        tokens: [N], the whole text, a memory map for instance.
        targets: positions in it, from ``window.first_target`` on at the earliest.
        progress: called with how many targets more are scored.

    Raises:
        UserError: where the text is too short for that.
    """
    _check(tokens, window, targets)
    sums: list[float] = []
    counts: list[int] = []
    device = next(model.parameters()).device
    for starts in _batches(range(targets.start - window.first_target, targets.stop, window.stride), batch):
        rows, wanted = _read(tokens, window, targets, starts)
        with torch.inference_mode():
            loss = model(torch.as_tensor(rows).to(device), window.loss_rows, window.recent)
        nll = loss.nll.double().cpu().numpy() * wanted
        sums += nll.sum(axis=1).tolist()
        counts += wanted.sum(axis=1).tolist()
        if progress is not None:
            progress(int(wanted.sum()))
    mean = math.fsum(sums) / sum(counts)
    means = np.array([total / count for total, count in zip(sums, counts, strict=True) if count])
    error = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan
    return Score(mean, error, int(sum(counts)), bytes_per_token)


def loss_by_context(
    model: Transformer,
    tokens: Tokens,
    window: Window,
    contexts: Iterable[int],
    targets: range,
    *,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[float, Score]]:
    """The same targets, scored with windows of fewer rows: what context is worth.

    A context of K is a window of the model's own kind with K rows, of which the
    last half bear loss: a causal one, or [R | C] with R and C in proportion. So
    a prediction sees K/2 + 1 to K tokens, (3K + 2)/4 on average: the x of each pair.
    """
    points = []
    for rows in contexts:
        recent = window.recent * rows // window.rows
        stride = max(1, min(rows - recent, rows // 2))
        shrunk = Window(recent, rows - recent, stride)
        score = evaluate(model, tokens, shrunk, targets, batch=batch, progress=progress)
        points.append((rows - (stride - 1) / 2, score))
    return points


def _check(tokens: Tokens, window: Window, targets: range) -> None:
    if targets.step != 1 or not targets:
        raise UserError(f"there is nothing to score: targets {targets.start} to {targets.stop}")
    if targets.start < window.first_target or targets.stop > len(tokens):
        raise UserError(
            f"the text has {len(tokens)} tokens; a window {window} can score positions "
            f"{window.first_target} to {len(tokens) - 1}, not {targets.start} to {targets.stop - 1}: "
            "give a longer text or a shorter window"
        )


def _batches(starts: range, size: int) -> Iterator[range]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]


def _read(
    tokens: Tokens, window: Window, targets: range, starts: range
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Windows [batch, n + 1], and which of their targets [batch, s] are asked for.

    The last window may reach beyond the text: what lies there is no target, and
    comes after all that is.
    """
    places = np.asarray(starts)[:, None] + np.arange(window.tokens)
    read = tokens[np.minimum(places, len(tokens) - 1)].astype(np.int64)
    target = places[:, 1:][:, window.loss_rows]
    return read, (target >= targets.start) & (target < targets.stop)
