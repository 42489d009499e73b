"""Weights in the loss by segment of a packed document: from a token that marks a segment to the next such token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from megarc.data.source import Facts, Tokens, Weights
from megarc.errors import UserError


@dataclass(frozen=True, slots=True)
class MarkWeights:
    """``weights`` [m] of the segments that begin with ``ids`` [m]; the mark belongs to its segment."""

    ids: Tokens
    weights: Weights

    @classmethod
    def of(cls, given: Mapping[str, float], facts: Facts) -> MarkWeights:
        """Marks are names of reserved tokens, or ids.

        Raises:
            UserError: where the source does not know a token, or one is named twice.
        """
        ids = [_id_of(mark, facts) for mark in given]
        if len(set(ids)) < len(ids):
            raise UserError(
                f"data.segment_weights names a token twice: {dict(zip(given, ids, strict=True))}; name it once"
            )
        order = np.argsort(np.asarray(ids, dtype=np.int64))
        return cls(
            np.asarray(ids, dtype=np.int64)[order], np.asarray(list(given.values()), np.float32)[order]
        )

    def apply(self, tokens: Tokens, weights: Weights) -> Weights:
        """The weights [n - 1] of the rows of a document, whose row i predicts ``tokens`` [n] i + 1.

        Rows whose target stands before any mark keep theirs.
        """
        place = np.searchsorted(self.ids, tokens).clip(max=len(self.ids) - 1)
        marked = self.ids[place] == tokens
        last = np.maximum.accumulate(np.where(marked, np.arange(len(tokens)), -1))[1:]
        found: Weights = np.where(last < 0, weights, self.weights[place[np.maximum(last, 0)]])
        return found


def _id_of(mark: str, facts: Facts) -> int:
    reserved = facts.reserved or {}
    number = int(mark) if mark.isdecimal() else reserved.get(mark)
    if number is None:
        known = ", ".join(reserved) or "none"
        raise UserError(
            f"data.segment_weights has '{mark}', which {facts.name} does not reserve; give one of its reserved tokens "
            f"({known}) or an id"
        )
    if facts.vocabulary is not None and number >= facts.vocabulary:
        raise UserError(
            f"data.segment_weights has {number}, and {facts.name} has {facts.vocabulary} tokens; give an id below that"
        )
    return number
