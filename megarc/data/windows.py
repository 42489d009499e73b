"""A corpus as a source: its windows, each ``stride`` tokens after the one before.

The tokens stay on disk, or in a store. A batch is a few rows of them (``megarc.data.token_rows``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from megarc.data.documents import Corpus, begun, cut, segments
from megarc.data.source import Facts, Indices, Sample, Samples, Segments, Tokens
from megarc.data.token_rows import token_rows
from megarc.errors import UserError
from megarc.window import Window


class StridedCorpus:
    """The windows of a corpus, or of the part of it that lies between two shares of its tokens.

    Parts are cut where a document begins, so that [0, x] and [x, 1] have no document in common.

    Args:
        facts: of the whole corpus.
        isolate: make batches that say which document each row belongs to.

    Raises:
        UserError: where the part has no whole window.
    """

    def __init__(
        self,
        corpus: Corpus,
        window: Window,
        facts: Facts,
        *,
        part: tuple[float, float] = (0.0, 1.0),
        isolate: bool = False,
    ) -> None:
        whole = part == (0.0, 1.0)
        begin, end = (0, len(corpus.tokens)) if whole else (cut(corpus, share) for share in part)
        self._rows = token_rows(corpus.tokens, begin, end)
        self._count = count = window.count(end - begin)
        if not count:
            raise UserError(
                f"{facts.name}: a window {window} reads {window.tokens} tokens and there are only "
                f"{end - begin}; make the window shorter or give a longer corpus"
            )
        self.digest = corpus.digest if whole else f"{corpus.digest}[{begin}:{end}]"
        self.facts = facts if whole else _facts_of_part(corpus, facts, begin, end)
        self._window, self._begin = window, begin
        self._corpus, self._isolate = corpus, isolate

    def __len__(self) -> int:
        return self._count

    def first(self, k: int) -> int:
        """The number of window k's first token in the whole corpus."""
        return self._begin + k * self._window.stride

    def before(self, k: int, count: int) -> Tokens:
        """Up to ``count`` tokens of this part that lie before window k."""
        start = k * self._window.stride
        return self._rows.between(max(0, start - count), start)

    def located(self, k: int) -> str:
        """Window k's tokens and documents, by their numbers in the corpus."""
        first = self.first(k)
        last = first + self._window.tokens - 1
        begin, end = (begun(self._corpus, np.asarray([first, last])) - 1).tolist()
        documents = f"document {begin}" if begin == end else f"documents {begin} to {end}"
        return f"{documents}, tokens {first} to {last}"

    def read(self, k: int) -> Sample:
        """Window k; on a disk a view of the memory map."""
        documents, start = self._segments(np.asarray([k])), k * self._window.stride
        tokens = self._rows.between(start, start + self._window.tokens)
        return Sample(tokens, documents=None if documents is None else documents[0])

    def read_many(self, k: Indices) -> Samples:
        """Windows k [B], copied."""
        tokens = self._rows.read(k * self._window.stride, self._window.tokens)
        return Samples(tokens, documents=self._segments(k))

    @property
    def far(self) -> bool:
        """Whether the corpus lies in a store."""
        return self._rows.far

    def announce(self, k: Indices) -> None:
        """Windows k [B] are read in some steps."""
        self._rows.announce(k * self._window.stride, self._window.tokens)

    def _segments(self, k: Indices) -> Segments | None:
        if not self._isolate:
            return None
        return segments(self._corpus, self._begin + k * self._window.stride, self._window.rows)


def _facts_of_part(corpus: Corpus, facts: Facts, begin: int, end: int) -> Facts:
    first, after = begun(corpus, np.asarray([begin - 1, end - 1]))
    name = f"{facts.name} [{begin}:{end}]"
    return replace(facts, name=name, tokens=end - begin, documents=int(after - first))
