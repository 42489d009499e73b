"""The windows of a run: one, several that follow each other, or a mixture.

**Stages.** Every stage predicts the same chunks of a corpus. A chunk is as many tokens as the largest stride; the
order permutes chunks, whatever the stage; a stage of a smaller stride takes several windows for each, one after the
other. So a chunk is either predicted whole in one stage or whole in another, and an epoch that crosses from one stage
to the next predicts each token once. What is read from a source is the *grid* window: a chunk with the longest context
that a stage gives it. A stage's windows are parts of it.

**Mix.** All samples have the same rows, and each predicts all that lie behind its own R. Windows lie as far apart as
the longest C, so no token is a target twice an epoch; the tokens in an R are targets in another epoch, or never.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from megarc.data.counter_random import key_of, words
from megarc.data.source import Indices, Segments
from megarc.window import Window


@dataclass(frozen=True, slots=True)
class Piece:
    """A stage: from sample ``sample`` on, which begins the grid's window ``place``, samples have ``window``.

    Attributes:
        parts: windows of this stage that predict what one window of the grid does.
    """

    sample: int
    place: int
    window: Window
    parts: int


@dataclass(frozen=True, slots=True)
class Mixed:
    """A ``share`` of the samples with an R of ``recent`` rows."""

    share: float
    recent: int


class Shapes:
    """Which window each sample of a run has. ``Shapes.one``, ``.mixed`` and ``.staged`` make them.

    Attributes:
        own: the window in which the trained model is used.
        grid: the window that sources are read by.
        pieces: the stages, in order; one where nothing changes.
        mix: the shares with another R.
    """

    def __init__(self, own: Window, grid: Window, pieces: Sequence[Piece], mix: Sequence[Mixed] = ()) -> None:
        self.own, self.grid, self.pieces, self.mix = own, grid, tuple(pieces), tuple(mix)
        self._begins = [piece.sample for piece in self.pieces]

    @classmethod
    def one(cls, window: Window) -> Shapes:
        """The same window all through."""
        return cls(window, window, [Piece(0, 0, window, 1)])

    @classmethod
    def mixed(cls, window: Window, mix: Sequence[Mixed]) -> Shapes:
        """``window`` with shares of another R."""
        rows = window.rows
        smallest = min([window.recent, *(part.recent for part in mix)])
        stride = max([window.stride, *(rows - part.recent for part in mix)])
        grid = Window(smallest, rows - smallest, stride)
        return cls(window, grid, [Piece(0, 0, grid, 1)], mix)

    @classmethod
    def packed(cls, stages: Sequence[tuple[int, Window]], mix: Sequence[Mixed] = ()) -> Shapes:
        """Of packed rows: every sample is one row of whole documents, and only the R that documents may have changes.

        Raises:
            ValueError: where stages have different numbers of rows.
        """
        own = stages[-1][1]
        if any(window.rows != own.rows for _, window in stages):
            raise ValueError("packed rows have one length in all stages")
        longest = max([own.recent, *(window.recent for _, window in stages), *(part.recent for part in mix)])
        grid = Window(longest, own.rows - longest, own.rows - longest)
        return cls(own, grid, [Piece(sample, sample, window, 1) for sample, window in stages], mix)

    @classmethod
    def staged(cls, stages: Sequence[tuple[int, Window]]) -> Shapes:
        """Windows one after the other: each from a sample on, the first from 0.

        Raises:
            ValueError: where a stage would begin inside a chunk, or before the one in front of it.
        """
        chunk = max(window.stride for _, window in stages)
        context = max(window.first_target for _, window in stages)
        grid = Window(0, context + chunk - 1, chunk)
        pieces = [Piece(0, 0, stages[0][1], chunk // stages[0][1].stride)]
        for sample, window in stages[1:]:
            before = pieces[-1]
            passed, rest = divmod(sample - before.sample, before.parts)
            if rest or passed <= 0:
                raise ValueError(
                    f"a stage begins at sample {sample}, and the one before it at {before.sample}"
                )
            pieces.append(Piece(sample, before.place + passed, window, chunk // window.stride))
        return cls(stages[-1][1], grid, pieces)

    # ---- which window

    def piece(self, sample: int) -> Piece:
        """The stage that sample ``sample`` lies in."""
        return self.pieces[bisect.bisect_right(self._begins, sample) - 1]

    def end(self, piece: Piece) -> float:
        """The first sample behind ``piece``."""
        after = self.pieces.index(piece) + 1
        return self.pieces[after].sample if after < len(self.pieces) else math.inf

    def place(self, sample: int) -> float:
        """How many windows of the grid all samples before ``sample`` read."""
        piece = self.piece(sample)
        return piece.place + (sample - piece.sample) / piece.parts

    def begin(self, piece: Piece, part: int) -> int:
        """The place in a window of the grid at which window ``part`` of those that a stage makes of it begins."""
        if piece.window.rows == self.grid.rows:  # the whole of it, packed rows too
            return 0
        return self.grid.first_target + part * piece.window.stride - piece.window.first_target

    def held_out(self, sample: int) -> Shapes:
        """The window of held-out data while training stands at ``sample``: the stage's."""
        piece = self.piece(sample)
        return Shapes(piece.window, self.grid, [Piece(0, 0, piece.window, piece.parts)])

    # ---- amounts

    def average(self, sample: int, amount: Callable[[Window], float]) -> float:
        """The mean of ``amount`` over the windows of samples around ``sample``."""
        if not self.mix:
            return amount(self.piece(sample).window)
        rows, rest = self.own.rows, 1.0
        total = 0.0
        for part in self.mix:
            total += part.share * amount(Window(part.recent, rows - part.recent, rows - part.recent))
            rest -= part.share
        return total + max(0.0, rest) * amount(self.own)

    def before(self, sample: int, amount: Callable[[Window], float]) -> float:
        """The sum of ``amount`` over all samples before ``sample``; expected, for a mix."""
        total = 0.0
        for piece in self.pieces:
            count = min(sample, self.end(piece)) - piece.sample
            if count > 0:
                total += count * self.average(piece.sample, amount)
        return total

    def samples_of(self, wanted: float | Fraction, amount: Callable[[Window], float]) -> int:
        """The fewest samples from the run's start whose ``amount`` sums to ``wanted``."""
        left = Fraction(wanted)
        for piece, after in zip(self.pieces, [*self.pieces[1:], None], strict=True):
            each = Fraction(self.average(piece.sample, amount)).limit_denominator(10**9)
            if after is None or left <= (after.sample - piece.sample) * each:
                return piece.sample + math.ceil(left / each)
            left -= (after.sample - piece.sample) * each
        raise AssertionError("the last stage has no end")

    def predicted(self, sample: int) -> int:
        """Predicted tokens of all samples before ``sample``."""
        return round(self.before(sample, predicted_by))

    def processed(self, sample: int) -> int:
        """Processed tokens of all samples before ``sample``."""
        return round(self.before(sample, processed_by))

    def __str__(self) -> str:
        if self.mix:
            parts = (f"{100 * part.share:.4g} % with R of {part.recent}" for part in self.mix)
            return f"{self.own}; {', '.join(parts)}, all rows behind R predicted, {self.grid.stride} tokens apart"
        first, *later = self.pieces
        return str(first.window) + "".join(
            f", {piece.window} from sample {piece.sample} on" for piece in later
        )


@dataclass(frozen=True, slots=True)
class MixedRecent:
    """Draws each sample's R from the shares of a mix; which one, its number decides."""

    own: int
    mix: tuple[Mixed, ...]
    seed: int
    phase: int

    def draw(self, samples: Indices) -> Segments:
        """Rows of R of samples [B]."""
        word = words(key_of("window mix", self.seed, self.phase), samples) >> np.uint64(32)
        ends = np.cumsum([part.share for part in self.mix])
        which = np.searchsorted(np.round(ends * 2**32), word, side="right")
        recents = np.asarray([*(part.recent for part in self.mix), self.own], dtype=np.int32)
        return recents[np.minimum(which, len(self.mix))]


def predicted_by(window: Window) -> int:
    """Tokens that a window predicts."""
    return window.stride


def processed_by(window: Window) -> int:
    """Tokens that a window processes."""
    return window.rows
