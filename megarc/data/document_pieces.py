"""Documents to pieces that fit into a row: the rule for those that are longer.

A row of n rows reads n + 1 tokens. A longer document with a question and an answer is cropped:
the question gives way first, from its beginning, until half of the row is left to it; then
the answer loses its end. A longer document without an answer is cut into pieces that follow
each other; each begins with the token that the piece before predicted last, so that every
token but the first is predicted once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megarc.data.source import Indices


@dataclass(frozen=True, slots=True)
class Pieces:
    """What goes into rows, ``[pieces]`` each.

    Attributes:
        start: the first token, in the corpus.
        length: tokens.
        answer: tokens before the answer; row ``answer - 1`` of the piece is the first that predicts.
        cropped: tokens of the documents that stand in no piece.
        shortened: documents whose answer lost its end, by number, ``[..]``.
        silent: documents in which nothing can be predicted, which are left out.
    """

    start: Indices
    length: Indices
    answer: Indices
    cropped: int
    shortened: Indices
    silent: int

    @property
    def predicted(self) -> Indices:
        """Tokens that are targets, of each piece."""
        return self.length - np.maximum(self.answer, 1)


def pieces_of(start: Indices, length: Indices, answer: Indices | None, limit: int) -> Pieces:
    """Of documents ``[documents]``, in pieces of ``limit`` tokens at most.

    Args:
        answer: tokens before each one's answer; None: documents have none, all of each is predicted.
    """
    if answer is not None:
        return _cropped(start, length, answer, limit)
    good = length > 1
    counts = np.where(good, -(-(length - 1) // (limit - 1)), 0)
    document: Indices = np.repeat(np.arange(len(start)), counts)
    turn = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    offset = turn * (limit - 1)
    return Pieces(
        start=start[document] + offset,
        length=np.minimum(length[document] - offset, limit),
        answer=np.zeros(len(document), dtype=np.int64),
        cropped=int(length[~good].sum()),
        shortened=np.empty(0, dtype=np.int64),
        silent=int((~good).sum()),
    )


def _cropped(start: Indices, length: Indices, question: Indices, limit: int) -> Pieces:
    answer = length - question
    kept = np.where(length > limit, np.maximum(limit - answer, np.minimum(question, limit // 2)), question)
    said = np.minimum(answer, limit - kept)
    good = kept + said > np.maximum(kept, 1)
    return Pieces(
        start=(start + question - kept)[good],
        length=(kept + said)[good],
        answer=kept[good],
        cropped=int(length.sum() - (kept + said)[good].sum()),
        shortened=np.flatnonzero(said < answer),
        silent=int((~good).sum()),
    )
