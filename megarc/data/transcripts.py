"""Transcripts as a source: the windows of a corpus, with a loss weight by segment.

A token is text, code or output by the reserved tokens around it; those count with what they enclose. So nothing is
stored beside the corpus. A window that begins within a segment looks back for the mark that opened it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from megarc.config import Config, build, key
from megarc.corpus import Marks
from megarc.data.config import SourceConfig
from megarc.data.source import Facts, Indices, Sample, Samples, Tokens, Weights
from megarc.data.windows import StridedCorpus
from megarc.window import Window

KINDS = ("text", "code", "output")
_PART = 1 << 20  # tokens whose kinds are found at once
_LOOK_BACK = 4096  # tokens at first, then twice as many

SegmentKinds: TypeAlias = npt.NDArray[np.int8]


class SegmentWeights(Config):
    """What a predicted token counts in the loss, by the segment that it lies in."""

    text: float = key(1.0, "text between pieces", ge=0)
    code: float = key(1.0, "code: the model writes it", ge=0)
    output: float = key(0.0, "output: while generating, the interpreter writes it, not the model", ge=0)


class TranscriptsConfig(Config):
    """Options of a source of kind transcripts."""

    weights: SegmentWeights = key(SegmentWeights, "loss weights by segment")


def weights_of(sources: Sequence[SourceConfig]) -> list[float]:
    """The weights of ``KINDS`` that a run trains with: of its first source of transcripts; 1 where it has none."""
    for source in sources:
        if source.kind == "transcripts":
            weights = build(
                TranscriptsConfig, source.options, "options of a source of kind transcripts"
            ).weights
            return [getattr(weights, kind) for kind in KINDS]
    return [1.0] * len(KINDS)


@dataclass(frozen=True, slots=True)
class Segments:
    """Tells tokens apart by the reserved tokens around them.

    Attributes:
        end: the end-of-document token, which ends whatever is open; None: there is none.
    """

    marks: Marks
    end: int | None

    @classmethod
    def of(cls, reserved: Mapping[str, int] | None, end: int | None, place: str) -> Segments:
        """
        Raises:
            UserError: where the reserved tokens are missing.
        """
        return cls(Marks.of(reserved, place), end)

    def kinds(self, tokens: Tokens, before: SegmentKinds) -> SegmentKinds:
        """Of each of ``tokens`` [B, n]: 0 text, 1 code, 2 output; ``before`` [B] is what the token before is in."""
        entered = self._entered(tokens)
        place = np.where(entered >= 0, np.arange(tokens.shape[1]), -1)
        last = np.maximum.accumulate(place, axis=1)
        inside = np.take_along_axis(entered, np.maximum(last, 0), axis=1)
        kinds = np.where(last < 0, before[:, None], inside).astype(np.int8)
        # A closing mark ends its segment behind itself.
        kinds[tokens == self.marks.end_of_code] = 1
        kinds[tokens == self.marks.end_of_output] = 2
        return kinds

    def whole(self, tokens: Tokens) -> SegmentKinds:
        """Of each of a corpus's first ``tokens`` [n] what it is in: text before any mark."""
        parts: list[SegmentKinds] = []
        inside = 0
        for begin in range(0, len(tokens), _PART):
            part = np.asarray(tokens[begin : begin + _PART])
            parts.append(self.kinds(part[None], np.asarray([inside], dtype=np.int8))[0])
            after = self.last(part)
            inside = inside if after is None else after
        return np.concatenate([np.empty(0, np.int8), *parts])

    def last(self, tokens: Tokens) -> int | None:
        """What a token behind ``tokens`` [n] is in; None where they tell nothing."""
        entered = self._entered(tokens[None])[0]
        found = np.nonzero(entered >= 0)[0]
        return int(entered[found[-1]]) if len(found) else None

    def _entered(self, tokens: Tokens) -> SegmentKinds:
        """What each token opens or goes back to; -1 where it changes nothing."""
        marks = self.marks
        entered: SegmentKinds = np.full(tokens.shape, -1, dtype=np.int8)
        entered[tokens == marks.code] = 1
        entered[tokens == marks.output] = 2
        for closing in (marks.end_of_code, marks.end_of_output, self.end):
            if closing is not None:
                entered[tokens == closing] = 0
        return entered


class Transcripts:
    """The windows of ``base``, each with its weights."""

    def __init__(
        self, base: StridedCorpus, window: Window, segments: Segments, weights: SegmentWeights
    ) -> None:
        self._base, self._window, self._segments = base, window, segments
        self._weights = np.asarray([getattr(weights, kind) for kind in KINDS], dtype=np.float32)
        identity = orjson.dumps([base.digest, self._weights.tolist()])
        self.digest = "transcripts-" + hashlib.sha256(identity).hexdigest()

    @property
    def facts(self) -> Facts:
        return replace(self._base.facts, name=f"{self._base.facts.name} (transcripts)")

    def __len__(self) -> int:
        return len(self._base)

    def read(self, k: int) -> Sample:
        """Window k."""
        many = self.read_many(np.asarray([k]))
        assert many.weights is not None
        documents = None if many.documents is None else many.documents[0]
        return Sample(many.tokens[0], many.weights[0], documents)

    def read_many(self, k: Indices) -> Samples:
        """Windows k [B]."""
        samples = self._base.read_many(k)
        return replace(samples, weights=self._weights_of(k, samples.tokens))

    @property
    def far(self) -> bool:
        """Whether the corpus lies in a store."""
        return self._base.far

    def announce(self, k: Indices) -> None:
        """Windows k [B] are read in some steps."""
        self._base.announce(k)

    def kinds(self, k: Indices, tokens: Tokens) -> SegmentKinds:
        """What each token of windows k is in: [B, n + 1], as ``KINDS`` has it."""
        known = self._segments.kinds(tokens, np.full(len(k), -1, dtype=np.int8))
        before = [
            self._look_back(int(number)) if row[0] < 0 else 0 for number, row in zip(k, known, strict=True)
        ]
        return np.where(known < 0, np.asarray(before, dtype=np.int8)[:, None], known)

    def _weights_of(self, k: Indices, tokens: Tokens) -> Weights:
        """[B, s]: loss row i predicts token i + 1, whose segment counts."""
        targets = self.kinds(k, tokens)[:, 1:][:, self._window.loss_rows]
        return self._weights[targets]

    def _look_back(self, k: int) -> int:
        """What window k begins in: text, where no mark stands before it."""
        count = _LOOK_BACK
        while True:
            tokens = self._base.before(k, count)
            found = self._segments.last(tokens)
            if found is not None or len(tokens) < count:
                return found or 0
            count *= 2
