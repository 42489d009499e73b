"""A corpus as a source of packed rows: whole documents side by side, each with its own R and its own loss.

Which documents share a row is worked out when the source is opened, from their lengths alone;
it takes about 40 bytes of memory and a few microseconds a document. From then on a packed row
is a sample like any other: orders, blends and resuming know nothing of documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from megarc.data.bin_packing import FITS
from megarc.data.document_pieces import pieces_of
from megarc.data.documents import Corpus, begun, cut
from megarc.data.mark_weights import MarkWeights
from megarc.data.source import Facts, Indices, Sample, Samples, Segments, Tokens, Weights
from megarc.data.token_rows import token_rows
from megarc.errors import UserError
from megarc.window import Window

_NAMED = 5  # documents that a note names


class DividedCorpus(Corpus, Protocol):
    """A corpus that may know where the answer begins in each document."""

    @property
    def answers(self) -> npt.NDArray[np.uint32] | None:
        """The tokens before each document's answer, ``[documents]``."""


@dataclass(frozen=True, slots=True)
class Filling:
    """How well rows are filled.

    Attributes:
        rows: packed rows.
        padding: share of their tokens that are padding.
        cropped: share of the corpus's tokens that are in no row.
        unpredicted: share of the rows' positions that bear no loss.
    """

    rows: int
    padding: float
    cropped: float
    unpredicted: float

    def __str__(self) -> str:
        shares = (("padding", self.padding), ("cropped", self.cropped), ("unpredicted", self.unpredicted))
        return ", ".join(f"{100 * share:.2g} % {name}" for name, share in shares)


class PackedCorpus:
    """Rows of whole documents of a corpus, or of the part of it between two shares of its tokens.

    R of a document is its question without the last token, whose row predicts the answer's first;
    ``window.recent`` rows at most. Which documents share a row, and the order of rows, do not depend on
    ``window.recent``, so 0 gives a causal model the same rows. Loss lies on the answer, and with
    ``question_weight`` on the question's tokens; in documents without an answer on every token but the
    first. The stream takes away the loss of rows in R.

    Args:
        packing: a name of ``FITS``.
        question_weight: of a question's token in the loss, where an answer's has 1.
        segment_weights: instead, by segment: marks (reserved tokens or ids) and the weights of what begins with them.

    Raises:
        UserError: where nothing can be predicted, a mark is unknown, or documents without answers should have an R.
    """

    def __init__(
        self,
        corpus: DividedCorpus,
        window: Window,
        facts: Facts,
        *,
        packing: str,
        part: tuple[float, float] = (0.0, 1.0),
        question_weight: float = 0.0,
        segment_weights: Mapping[str, float] | None = None,
    ) -> None:
        self._window, self._rows = window, token_rows(corpus.tokens, 0, len(corpus.tokens))
        self._question_weight = question_weight
        self._marks = MarkWeights.of(segment_weights, facts) if segment_weights else None
        start, length, answer = _documents(corpus, part)
        if answer is None and window.recent:
            raise UserError(
                f"{facts.name} does not say where answers begin, so its documents have no R: pack it with "
                "preprocess.py --recent-key and --causal-key, or use window.recent=0 or data.packing=windows"
            )
        self._pieces = pieces_of(start, length, answer, window.tokens)
        if not len(self._pieces.start):
            raise UserError(f"{facts.name}: none of its {len(start)} documents has a token to predict")
        row = FITS[packing](self._pieces.length, window.tokens)
        self._order = np.argsort(row, kind="stable")
        self._first = np.concatenate([[0], np.cumsum(np.bincount(row))])
        self.filling = self._filled(int(length.sum()))
        identity = [corpus.digest, packing, window.rows, *map(str, part)]
        self.digest = "packed-" + hashlib.sha256(repr(identity).encode()).hexdigest()
        self.facts = replace(
            facts,
            tokens=int(length.sum()),
            documents=len(start),
            note="; ".join(filter(None, (facts.note, self._note(packing)))),
        )

    def __len__(self) -> int:
        return len(self._first) - 1

    def located(self, k: int) -> str:
        """How many documents row k holds, and the token of the corpus that the first begins with."""
        pieces = self._order[self._first[k] : self._first[k + 1]]
        named = "document" if len(pieces) == 1 else "documents"
        return f"{len(pieces)} whole {named}, from token {int(self._pieces.start[pieces[0]])} on"

    def read(self, k: int) -> Sample:
        """Row k."""
        many = self.read_many(np.asarray([k]))
        assert many.weights is not None and many.documents is not None and many.recent_end is not None
        return Sample(many.tokens[0], many.weights[0], many.documents[0], recent_end=many.recent_end[0])

    def read_many(self, k: Indices) -> Samples:
        """Rows k [B]: weights, documents and ends of R of all n rows."""
        rows, count = self._window.rows, len(k)
        tokens: Tokens = np.zeros((count, rows + 1), dtype=np.int32)
        weights: Weights = np.zeros((count, rows + 1), dtype=np.float32)
        # A row of padding is a document of its own: it sees itself only.
        documents: Segments = np.tile(np.arange(rows + 1, dtype=np.int32), (count, 1))
        recent_end: Segments = np.zeros((count, rows + 1), dtype=np.int32)
        self._rows.ready(*self._places(k))
        for sample, number in enumerate(np.asarray(k).tolist()):
            at = 0
            for piece in self._order[self._first[number] : self._first[number + 1]].tolist():
                first, length = int(self._pieces.start[piece]), int(self._pieces.length[piece])
                answer = int(self._pieces.answer[piece])
                place = slice(at, at + length)
                tokens[sample, place] = self._rows.between(first, first + length)
                documents[sample, place] = at
                recent_end[sample, place] = at + min(max(answer - 1, 0), self._window.recent)
                begins = at + max(answer, 1) - 1
                weights[sample, at:begins] = self._question_weight
                weights[sample, begins : at + length - 1] = 1.0
                if self._marks is not None:
                    rows_of = slice(at, at + length - 1)
                    weights[sample, rows_of] = self._marks.apply(
                        tokens[sample, place], weights[sample, rows_of]
                    )
                at += length
        return Samples(tokens, weights[:, :-1], documents[:, :-1], recent_end=recent_end[:, :-1])

    @property
    def far(self) -> bool:
        """Whether the corpus lies in a store."""
        return self._rows.far

    def announce(self, k: Indices) -> None:
        """Rows k [B] are read in some steps."""
        self._rows.announce(*self._places(k))

    def _places(self, k: Indices) -> tuple[Indices, Indices]:
        """The first tokens of all documents of rows k [B], and their lengths: [documents]."""
        numbers = np.asarray(k).tolist()
        pieces = np.concatenate([self._order[self._first[one] : self._first[one + 1]] for one in numbers])
        return self._pieces.start[pieces], self._pieces.length[pieces]

    def _filled(self, corpus_tokens: int) -> Filling:
        size = len(self) * self._window.tokens
        return Filling(
            rows=len(self),
            padding=1 - int(self._pieces.length.sum()) / size,
            cropped=self._pieces.cropped / max(corpus_tokens, 1),
            unpredicted=1 - int(self._pieces.predicted.sum()) / (len(self) * self._window.rows),
        )

    def _note(self, packing: str) -> str:
        note = f"packed by {packing}: {self.filling}"
        if self._pieces.silent:
            note += f"; {self._pieces.silent} documents with nothing to predict are left out"
        shortened = self._pieces.shortened
        if len(shortened):
            named = ", ".join(map(str, shortened[:_NAMED].tolist())) + (
                " ..." if len(shortened) > _NAMED else ""
            )
            note += (
                f"; {len(shortened)} answers are longer than a row and lose their ends (documents {named})"
            )
        return note


def _documents(corpus: DividedCorpus, part: tuple[float, float]) -> tuple[Indices, Indices, Indices | None]:
    """First token, tokens, and tokens before the answer of each document of the part, ``[documents]``."""
    begin, end = 0, len(corpus.tokens)
    first, last = 0, corpus.document_count
    if part != (0.0, 1.0):
        begin, end = (cut(corpus, share) for share in part)
        first, last = (int(number) for number in begun(corpus, np.asarray([begin - 1, end - 1])))
    start = corpus.document_starts(np.arange(first, last, dtype=np.int64))
    length: Indices = np.diff(np.append(start, end))
    answers = corpus.answers
    return start, length, None if answers is None else answers[first:last].astype(np.int64)
