"""Exact cross-entropy of a text, walked by overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from megarc.errors import UserError
from megarc.inference.own_rows import row_losses
from megarc.inference.score import Places, Score, block_of, blocks
from megarc.interval import seen_by
from megarc.model import Transformer
from megarc.window import Window

_ROWS = 1 << 16  # of a forward pass on a rank at most, or one window: more only take memory

Tokens: TypeAlias = npt.NDArray[np.integer]
DocumentsOf: TypeAlias = Callable[[int, int], Places]
"""The document that each of the tokens start .. stop-1 lies in, as ``IndexedCorpus.documents_of`` tells."""
Edit: TypeAlias = Callable[[Places, Places], Places]
"""Other tokens for the windows ``read`` [batch, n + 1] that lie at ``places`` [batch, n + 1] of the text."""


def evaluate(
    model: Transformer,
    tokens: Tokens,
    window: Window,
    targets: range,
    *,
    documents: DocumentsOf | None = None,
    batch: int = 16,
    bytes_per_token: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Score:
    """Scores the targets ``tokens[targets]``, each once, with as much context as ``window`` gives.

    Models with different windows are comparable where ``targets`` is the same:
    each target lies on a loss row, so it has seen at least ``n - s + 1`` tokens.
    Sums are float64, whatever the model is. Context ranks share the rows of windows, and all find the same.

    Args:
        tokens: [N], the whole text, a memory map for instance.
        targets: positions in it, from ``window.first_target`` on at the earliest.
        documents: given for a model whose attention stays inside a document.
        batch: windows at once, fewer where they are long.
        progress: called with how many targets more are scored.

    Raises:
        UserError: where the text is too short for that, or of another vocabulary.
    """
    sums = np.zeros(blocks(targets))
    for target, nll in _walk(model, tokens, window, targets, documents, batch, None):
        wanted = target < targets.stop
        np.add.at(sums, block_of(target[wanted], targets), nll[wanted])
        if progress is not None:
            progress(int(wanted.sum()))
    return Score(targets, tuple(sums.tolist()), bytes_per_token)


def window_losses(
    model: Transformer,
    tokens: Tokens,
    window: Window,
    targets: range,
    *,
    documents: DocumentsOf | None = None,
    batch: int = 16,
    edit: Edit | None = None,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """The losses that ``evaluate`` sums, by window and loss row: [windows, s] in nats, NaN beyond the targets.

    Args:
        edit: changes what the windows read; the targets stay those of the text.

    Raises:
        UserError: as ``evaluate``.
    """
    found = []
    for target, nll in _walk(model, tokens, window, targets, documents, batch, edit):
        wanted = target < targets.stop
        found.append(np.where(wanted, nll, np.nan))
        if progress is not None:
            progress(int(wanted.sum()))
    return np.concatenate(found)


def _walk(
    model: Transformer,
    tokens: Tokens,
    window: Window,
    targets: range,
    documents: DocumentsOf | None,
    batch: int,
    edit: Edit | None,
) -> Iterator[tuple[Places, npt.NDArray[np.float64]]]:
    """The positions of the targets and their losses, [batch, s] each, a batch of windows at a time."""
    _check(tokens, window, targets)
    starts = range(targets.start - window.first_target, targets.stop - window.first_target, window.stride)
    at_once = min(batch, max(1, _ROWS * model.tensor.context.size // window.rows))
    for some in _batches(starts, at_once):
        places = np.asarray(some)[:, None] + np.arange(window.tokens)  # [batch, n + 1]
        # The last window may reach beyond the text: what lies there is no target, and follows all that is.
        inside = np.minimum(places, len(tokens) - 1)
        read = read_tokens(tokens, inside, model.config.tokens)
        if edit is not None:
            read = edit(read, places)
        segments = None if documents is None else _segments(documents, inside[:, :-1])
        seen = seen_by(window.rows, np.full(len(read), window.recent, np.int32), segments)
        with torch.inference_mode():
            nll = row_losses(model, read, window.loss_rows, seen)
        yield places[:, 1:][:, window.loss_rows], nll.double().cpu().numpy()


def loss_by_context(
    model: Transformer,
    tokens: Tokens,
    window: Window,
    contexts: Iterable[int],
    targets: range,
    *,
    documents: DocumentsOf | None = None,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[float, Score]]:
    """The same targets, scored with windows of fewer rows: what context is worth.

    A context of K is a window of the model's own kind with K rows, of which the
    last half bear loss: a causal one, or [R | C] with R and C in proportion. So
    a prediction sees K/2 + 1 to K tokens, (3K + 2)/4 on average: the x of each
    pair. Where R is more than half, only C can bear loss, and it is somewhat more.

    A causal model has met every length of context while it was trained. A model
    with R has met a smaller one only where ``data.short_recent`` showed it: else
    the left of its curve says what it makes of the unknown, not what context is worth.

    Raises:
        UserError: as ``evaluate``, and for more rows than the model was trained on.
    """
    points = []
    for rows in contexts:
        if not 1 <= rows <= window.rows:
            raise UserError(f"a context of {rows} rows, for a model trained on windows of {window.rows}")
        recent = window.recent * rows // window.rows
        stride = max(1, min(rows - recent, rows // 2))
        shrunk = Window(recent, rows - recent, stride)
        score = evaluate(model, tokens, shrunk, targets, documents=documents, batch=batch, progress=progress)
        points.append((rows - (stride - 1) / 2, score))
    return points


def _check(tokens: Tokens, window: Window, targets: range) -> None:
    if len(tokens) < window.tokens:
        raise UserError(
            f"the text has {len(tokens)} tokens, a window {window} reads {window.tokens}: "
            "give a longer text or a shorter window"
        )
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


def read_tokens(tokens: Tokens, places: Places, vocabulary: int) -> Places:
    """The tokens at ``places`` [batch, rows], each below ``vocabulary``."""
    read: Places = tokens[places].astype(np.int64)
    if read.max() >= vocabulary or read.min() < 0:
        where = places[(read >= vocabulary) | (read < 0)][0]
        raise UserError(
            f"the text's token {where} is {tokens[where]}, but the model knows {vocabulary}: "
            "pack the text with the tokenizer that the model was trained with"
        )
    return read


def _segments(documents: DocumentsOf, places: Places) -> Places:
    """The document of each row [batch, n]; the windows of a batch lie close together."""
    first = int(places.min())
    return documents(first, int(places.max()) + 1)[places - first]
