"""Whether a trained model uses R: the same targets under other masks, and with other text in R.

A difference of losses between two runs mixes what their masks, their loss rows and their training do. Here
one model is scored twice on the same targets, so the difference has one cause: the mask, or R's text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.errors import UserError
from megarc.inference.evaluate import DocumentsOf, Edit, Tokens, read_tokens, window_losses
from megarc.inference.score import Places, ratio_error
from megarc.model import Transformer
from megarc.window import Window

USED = 0.01
"""Nats a target: from here on a difference is called one that the model uses."""
_BLOCKS = 64  # of consecutive windows, from which errors come

Losses: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over targets in nats, and its standard error (NaN where one window holds all of them)."""

    mean: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether the mean is more than two standard errors from 0."""
        return abs(self.mean) > 2 * self.error


@dataclass(frozen=True, slots=True)
class Change:
    """The model's loss under one change, and how much more that is than without it.

    Attributes:
        loss: nats a target.
        more: nats a target above the model's own mask and text, target by target.
        by_row: ``more`` of each of ``Probe.rows``.
    """

    loss: Measured
    more: Measured
    by_row: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """What one model makes of R.

    Attributes:
        window: the mask that the model was trained with, and the rows that were scored.
        boundary: row in front of which every R ends; the rows from there on are counted from 1.
        targets: how many were scored, each under every change.
        own: the loss under the model's own mask.
        rows: rows behind the boundary, from and to, in groups that double.
        masks: for each number of rows of R, the loss with so many rows seen both ways.
        texts: for each number of rows, the loss with other text in so many first rows, under the own mask.
    """

    window: Window
    boundary: int
    targets: int
    own: Measured
    rows: tuple[tuple[int, int], ...]
    masks: dict[int, Change]
    texts: dict[int, Change]

    @property
    def both_ways(self) -> Measured:
        """What seeing R both ways saves: the loss with a causal R less that with the largest R."""
        causal, whole = self.masks[0].more, self.masks[self.boundary].more
        return causal if self.window.recent else Measured(-whole.mean, whole.error)

    @property
    def text(self) -> Measured:
        """What other text in all of R costs."""
        return self.texts[self.boundary].more


def probe(
    model: Transformer,
    tokens: Tokens,
    window: Window,
    recents: Sequence[int],
    targets: range,
    *,
    documents: DocumentsOf | None = None,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
) -> Probe:
    """Scores ``tokens[targets]`` under each mask of ``recents`` and with R's text exchanged.

    Args:
        window: the model's own mask, with the rows to score, as ``probe_window`` gives it.
        recents: rows of R seen both ways; 0 and the model's own number are added.
        targets: positions in the text, from ``window.first_target`` on at the earliest.
        progress: called with how many targets more are scored.

    Raises:
        UserError: as ``evaluate``; where R covers a scored row.
    """
    asked = sorted({0, window.recent, *recents})
    boundary = asked[-1]
    if asked[0] < 0 or boundary > window.rows - window.stride or boundary == 0:
        raise UserError(
            f"R of {boundary} rows in windows of {window.rows} of which the last {window.stride} are scored: "
            f"give numbers of rows between 1 and {window.rows - window.stride}, or a smaller stride"
        )

    def losses(recent: int, edit: Edit | None = None) -> Losses:
        shape = Window(recent, window.rows - recent, window.stride)
        return window_losses(
            model, tokens, shape, targets, documents=documents, batch=batch, edit=edit, progress=progress
        )

    own = losses(window.recent)
    rows = _groups(window.rows - window.stride - boundary, window.rows - boundary)

    def change(found: Losses) -> Change:
        more = found - own
        first = window.rows - window.stride - boundary
        parts = (more[:, begin - 1 - first : end - first] for begin, end in rows)
        return Change(_measured(found), _measured(more), tuple(map(_measured, parts)))

    masks = {recent: change(own if recent == window.recent else losses(recent)) for recent in asked}
    exchanged = sorted({boundary - boundary // 8, boundary})
    texts = {
        count: change(losses(window.recent, _exchange(tokens, count, model.config.tokens)))
        for count in exchanged
    }
    return Probe(window, boundary, len(targets), _measured(own), rows, masks, texts)


def probe_window(trained: Window, recents: Sequence[int], stride: int | None = None) -> Window:
    """``trained`` with the rows that can be scored under every R of ``recents``.

    These are rows that learned to predict and lie behind the longest R.

    Raises:
        UserError: where there is no such row.
    """
    longest = max(trained.recent, *recents)
    most = min(trained.stride, trained.rows - longest)
    if most < 1 or (stride is not None and stride > most):
        raise UserError(
            f"R of {longest} rows leaves {max(0, most)} rows to score in the window {trained}; "
            "give smaller numbers to --recent or --stride"
        )
    return Window(trained.recent, trained.causal, stride or most)


def work(window: Window, recents: Sequence[int]) -> int:
    """How often ``probe`` scores each target."""
    boundary = max(window.recent, *recents)
    return len({0, window.recent, *recents}) + len({boundary - boundary // 8, boundary})


def _exchange(tokens: Tokens, count: int, vocabulary: int) -> Edit:
    """Puts other text into the first ``count`` rows: the same rows of a window half the text away."""

    def edit(read: Places, places: Places) -> Places:
        elsewhere = (places[:, :count] + len(tokens) // 2) % len(tokens)
        edited = read.copy()
        edited[:, :count] = read_tokens(tokens, elsewhere, vocabulary)
        return edited

    return edit


def _groups(first: int, end: int) -> tuple[tuple[int, int], ...]:
    """Rows ``first + 1 .. end`` behind the boundary in groups that double: 1, 2, 3-4, 5-8, ..."""
    groups, begin = [], first + 1
    while begin <= end:
        last = min(end, 1 << (begin - 1).bit_length())
        groups.append((begin, last))
        begin = last + 1
    return tuple(groups)


def _measured(values: Losses) -> Measured:
    """The mean of ``values`` [windows, rows], NaN where there is no target; the error from blocks of windows."""
    there = ~np.isnan(values)
    counts = there.sum(1)
    sums = np.where(there, values, 0.0).sum(1)
    used = counts > 0
    counts, sums = counts[used], sums[used]
    if not len(counts):
        return Measured(math.nan, math.nan)
    block: Places = np.arange(len(counts)) * min(_BLOCKS, len(counts)) // len(counts)
    blocked = [np.bincount(block, each) for each in (sums, counts)]
    return Measured(float(sums.sum() / counts.sum()), ratio_error(*blocked))
