"""Sources in an order: any run of samples, as a batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from megarc.data.batches import Batch
from megarc.data.counter_random import digest_of
from megarc.data.order import ENDLESS, Order
from megarc.data.permutation import RANKED
from megarc.data.recent_loss import HiddenRecent
from megarc.data.short_recent import ShortRecent
from megarc.data.source import (
    AnnouncedSource,
    Facts,
    Indices,
    OrderedSource,
    Samples,
    Segments,
    Source,
    Weights,
    read_many,
)
from megarc.data.window_shapes import MixedRecent, Piece, Shapes
from megarc.data.windows import StridedCorpus
from megarc.errors import UserError
from megarc.interval import Intervals
from megarc.progress import human
from megarc.window import Window


@dataclass(frozen=True, slots=True)
class Share:
    """What a source contributes to a run, for a table.

    Attributes:
        share: of the samples of the run.
        epochs: how often the run reads it.
        warning: what a reader should know, or "".
        note: what the source says of itself, or "".
    """

    name: str
    tokens: int | None
    windows: int
    share: float
    epochs: float
    warning: str
    note: str = ""

    def __str__(self) -> str:
        tokens = f"{human(self.tokens)} tokens, " if self.tokens else ""
        line = f"{self.name}: {tokens}{human(self.windows)} windows, {100 * self.share:.4g} % of the samples"
        line += f", {self.epochs:.3g} epochs{self.warning and '; warning: ' + self.warning}"
        return f"{line}; {self.note}" if self.note else line


class Stream:
    """The samples of a phase (or of the held-out data), by number.

    Args:
        window: that the sources were made for.
        shares: each source's part of the samples [sources].
        shapes: the windows of the samples; None: ``window`` for all.
        mixed: draws each sample's R, for a mix.
        hidden: hides tokens of R, for a loss on them.
        staged: whether the shares change in the run.

    Attributes:
        window: the one in which the model is used.
        shapes: the window of each sample.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        order: Order,
        window: Window,
        *,
        shares: Sequence[float],
        short_recent: ShortRecent | None = None,
        most_epochs: float = math.inf,
        shapes: Shapes | None = None,
        mixed: MixedRecent | None = None,
        hidden: HiddenRecent | None = None,
        staged: bool = False,
    ) -> None:
        self.shapes = shapes or Shapes.one(window)
        self.window = self.shapes.own
        self.sources = list(sources)
        self._order, self._shares = order, list(shares)
        self._short_recent, self._mixed, self._hidden = short_recent, mixed, hidden
        self._most_epochs, self._staged = most_epochs, staged
        first = [read_many(source, np.zeros(1, dtype=np.int64), self.shapes.grid) for source in self.sources]
        for source, samples in zip(self.sources, first, strict=True):
            _fits(source, samples, self.shapes.grid)
            own = samples.recent is not None or (samples.recent_end is not None and samples.documents is None)
            if own and (self.shapes.mix or len(self.shapes.pieces) > 1):
                raise UserError(
                    f"{source.facts.name} gives samples or documents an R of their own, and the run's windows "
                    "change; leave window.stages and window.mix out"
                )
        # The same for every batch of the stream, so that all ranks agree without asking each other.
        widths = [samples.weights.shape[1] for samples in first if samples.weights is not None]
        if mixed or hidden or len(self.shapes.pieces) > 1:
            widths.append(self.shapes.grid.stride)
        # rows of the grid's window that weights are given of: none, s or n
        self.weighted = max(widths, default=0)
        self.isolated = any(samples.documents is not None for samples in first)
        self.placed = any(samples.positions is not None for samples in first)
        self.split = any(samples.recent_end is not None for samples in first)

    # ---- reading

    def __len__(self) -> int:
        """How many samples: the windows of held-out data; 2**62, so no end, where it is trained on."""
        return min(len(self._order) * self.shapes.pieces[0].parts, ENDLESS)

    @property
    def heaviest(self) -> int:
        """The first sample of the stage whose windows are largest: what memory must hold."""
        return max(self.shapes.pieces, key=lambda piece: (piece.window.rows, piece.window.stride)).sample

    @property
    def sizes(self) -> list[int]:
        """Samples of each source, an epoch long, in the first stage's windows."""
        return [len(source) * self.shapes.pieces[0].parts for source in self.sources]

    @property
    def longest(self) -> int:
        """Tokens of the longest window."""
        return max(piece.window.tokens for piece in self.shapes.pieces)

    def held_out(self, sample: int) -> Stream:
        """This held-out stream with the windows of the stage that sample ``sample`` of the run lies in."""
        view = copy.copy(self)
        view.shapes = self.shapes.held_out(sample)
        view.window = view.shapes.own
        return view

    def in_phase(self, phase: int) -> Stream:
        """The same sources in the order of another phase, which begins at sample 0."""
        other = copy.copy(self)
        other._order = self._order.in_phase(phase)
        other._short_recent = self._short_recent and replace(self._short_recent, phase=phase)
        other._mixed = self._mixed and replace(self._mixed, phase=phase)
        other._hidden = self._hidden and replace(self._hidden, phase=phase)
        return other

    def read(self, first: int, count: int, out: npt.NDArray[np.int32] | None = None) -> Batch:
        """Samples first .. first + count - 1.

        Args:
            out: [count, rows + 1], where the tokens shall lie (page-locked memory, say), its rows at least as
                many as the window's: the first are used; None: a new array.

        Raises:
            UserError: where the samples lie in two stages.
        """
        if first < 0 or count < 1 or first + count > len(self):
            raise IndexError(f"{count} samples from {first} on, of {len(self)}")
        piece = self.shapes.piece(first)
        if first + count > self.shapes.end(piece):
            raise UserError(
                f"samples {first} to {first + count - 1} lie in two of window.stages; let a stage begin where a "
                "step does"
            )
        samples: Indices = np.arange(first, first + count, dtype=np.int64)
        if out is not None and out.shape[1] > piece.window.tokens:
            out = out[:, : piece.window.tokens]
        if self.split:
            batch = self._limited(self._read_grid(first, samples, out), piece.window)
            return self._with_loss_on_recent(batch, piece.window)
        if piece.window == self.shapes.grid:
            batch = self._read_grid(first - piece.sample + piece.place, samples, out)
        else:
            batch = self._read_part(piece, samples, out)
        return self._with_loss_on_recent(self._with_mix(batch, piece.window), piece.window)

    @property
    def far(self) -> bool:
        """Whether ``announce`` pays. Where text is packed meanwhile it would wait for that, so it is not called."""
        waits = any(isinstance(source, OrderedSource) for source in self.sources)
        return not waits and any(isinstance(one, AnnouncedSource) and one.far for one in self.sources)

    def announce(self, first: int, count: int) -> None:
        """Samples first .. first + count - 1 will be read in some steps: sources far away begin to fetch them."""
        piece = self.shapes.piece(first)
        last = min(first + count, self.shapes.end(piece)) - 1
        begin, end = (int(self.shapes.place(sample)) for sample in (first, int(last)))
        source, number = self._order.places(begin, end - begin + 1)
        for which, one in enumerate(self.sources):
            if isinstance(one, AnnouncedSource) and one.far and (source == which).any():
                one.announce(number[source == which])

    def _read_grid(self, place: int, samples: Indices, out: npt.NDArray[np.int32] | None) -> Batch:
        """The windows of the grid from ``place`` on, as samples ``samples`` [B]."""
        grid, count = self.shapes.grid, len(samples)
        source, number = self._order.places(place, count)
        row_numbers: Segments = np.arange(grid.rows, dtype=np.int32)
        batch = Batch(
            tokens=np.empty((count, grid.tokens), dtype=np.int32) if out is None else out,
            recent=self._recent(samples, grid),
            samples=samples,
            weights=self._plain_weights(count) if self.weighted else None,
            documents=np.zeros((count, grid.rows), dtype=np.int32) if self.isolated else None,
            positions=np.broadcast_to(row_numbers, (count, grid.rows)).copy() if self.placed else None,
            recent_end=self._recent_ends(samples) if self.split else None,
        )
        for which in np.unique(source) if len(self.sources) > 1 else [0]:
            rows = np.nonzero(source == which)[0]
            _fill(batch, rows, read_many(self.sources[which], number[rows], grid))
        return batch

    def _read_part(self, piece: Piece, samples: Indices, out: npt.NDArray[np.int32] | None) -> Batch:
        """Windows of a stage, each a part of a window of the grid."""
        grid, window = self.shapes.grid, piece.window
        passed, part = np.divmod(samples - piece.sample, piece.parts)
        whole = self._read_grid(
            piece.place + int(passed[0]), np.arange(passed[0], passed[-1] + 1, dtype=np.int64), None
        )
        which = (passed - passed[0])[:, None]
        behind = part[:, None] * window.stride + np.arange(window.stride)  # [B, s], of the grid's loss rows
        begin = np.asarray([self.shapes.begin(piece, one) for one in part.tolist()])[:, None]
        tokens = whole.tokens[which, begin + np.arange(window.tokens)]
        if out is not None:
            out[:] = tokens
        rows = begin + np.arange(window.rows)
        return Batch(
            tokens=tokens if out is None else out,
            recent=self._recent(samples, window),
            samples=samples,
            weights=None if whole.weights is None else whole.weights[:, -grid.stride :][which, behind],
            documents=None if whole.documents is None else whole.documents[which, rows],
            positions=None if whole.positions is None else whole.positions[which, rows],
        )

    def _limited(self, batch: Batch, window: Window) -> Batch:
        """Packed rows with the R of their stage, or the one drawn for them; no row of an R bears loss."""
        assert batch.weights is not None and batch.recent_end is not None
        recent, rows = self._recent(batch.samples, window), window.rows
        begin = Intervals.of(rows, recent, batch.documents).begin
        ends = np.minimum(batch.recent_end, begin + recent[:, None])
        weights = batch.weights.copy()
        weights[np.arange(rows)[None, -weights.shape[1] :] < ends[:, -weights.shape[1] :]] = 0.0
        return replace(batch, recent=recent, recent_end=ends, weights=weights)

    def _recent(self, samples: Indices, window: Window) -> Segments:
        if self._mixed:
            return self._mixed.draw(samples)
        if self._short_recent and window.recent:
            return self._short_recent.draw(samples, window.recent)
        return np.full(len(samples), window.recent, dtype=np.int32)

    def _with_mix(self, batch: Batch, window: Window) -> Batch:
        """Rows inside a sample's own R bear no loss; nor do those of C that the own window leaves out."""
        if self._mixed is None or batch.weights is None:
            return batch
        own = self.shapes.own
        first = np.where(batch.recent == own.recent, own.loss_rows.start, batch.recent)
        rows = np.arange(window.rows)[-batch.weights.shape[1] :]
        batch.weights[rows[None, :] < first[:, None]] = 0.0
        return batch

    def _recent_ends(self, samples: Indices) -> Segments:
        """Of samples whose source gives none: the end of R of the whole window."""
        grid = self.shapes.grid
        return np.repeat(self._recent(samples, grid)[:, None], grid.rows, axis=1)

    def _plain_weights(self, count: int) -> Weights:
        """Of samples whose source gives none: 1 on the window's loss rows."""
        weights: Weights = np.zeros((count, self.weighted), dtype=np.float32)
        weights[:, -self.shapes.grid.stride :] = 1.0
        return weights

    def _with_loss_on_recent(self, batch: Batch, window: Window) -> Batch:
        """Some tokens are hidden from the rows, and predicted by the row before them."""
        if self._hidden is None or batch.weights is None:
            return batch
        weights: Weights = np.zeros((len(batch.samples), window.rows), dtype=np.float32)
        weights[:, -batch.weights.shape[1] :] = batch.weights
        hide = self._hidden.hide(batch, weights)
        weights[:, :-1][hide[:, 1:]] = self._hidden.weight
        inputs = np.where(hide, np.int32(self._hidden.token), batch.tokens[:, :-1]) if hide.any() else None
        return replace(batch, weights=weights, inputs=inputs)

    def origin(self, sample: int) -> tuple[Source, int]:
        """The source of a sample, and which of the source's samples it is (or lies in, in a stage of small windows)."""
        source, number = self._order.places(int(self.shapes.place(sample)), 1)
        return self.sources[int(source[0])], int(number[0])

    def check_ids(self, batch: Batch, vocabulary: int) -> None:
        """That all token ids of a batch of this stream lie below ``vocabulary``.

        Raises:
            UserError: naming the source, the sample, the place in it and the id.
        """
        if batch.tokens.max() < vocabulary and batch.tokens.min() >= 0:
            return
        row, column = np.argwhere((batch.tokens >= vocabulary) | (batch.tokens < 0))[0]
        sample = int(batch.samples[row])
        which, window = self.origin(sample)
        piece = self.shapes.piece(sample)
        part = self.shapes.begin(piece, (sample - piece.sample) % piece.parts)
        token = (
            f", token {which.first(window) + part + column} of the corpus"
            if isinstance(which, StridedCorpus)
            else ""
        )
        raise UserError(
            f"{which.facts.name}: sample {sample} of the order (its window {window}) holds the id "
            f"{batch.tokens[row, column]} at place {column}{token}; the model's ids are 0 to {vocabulary - 1}. Set "
            "model.vocabulary to what the data was packed with, or pack the data again"
        )

    # ---- telling

    @property
    def digests(self) -> list[str]:
        """What the sources hold."""
        return [source.digest for source in self.sources]

    @property
    def order(self) -> str:
        """A digest of all that decides which tokens sample k of a phase holds; another one, another sample k."""
        grid, pieces = self.shapes.grid, self.shapes.pieces
        stages = [
            number for piece in pieces for number in (piece.sample, piece.window.rows, piece.window.stride)
        ]
        return digest_of(self._order.digest, grid.rows, grid.stride, *(stages if len(pieces) > 1 else []))

    @property
    def reordered(self) -> list[str]:
        """Names of the sources that runs without an order's digest, of an earlier megarc, read in another order."""
        return [source.facts.name for source in self.sources if len(source) <= RANKED]

    @property
    def vocabulary(self) -> int | None:
        """The largest vocabulary that a source states; None: none does."""
        return max((known for source in self.sources if (known := source.facts.vocabulary)), default=None)

    @property
    def tokenizer_digest(self) -> str | None:
        """The tokenizer's digest; None: no source knows it.

        Raises:
            UserError: where two sources were made by different tokenizers.
        """
        return one_tokenizer([source.facts for source in self.sources])

    def check_same_tokenizer(self, other: Stream) -> None:
        """That this stream's ids mean what ``other``'s mean: of held-out data beside what is trained on.

        Raises:
            UserError: where they were made by different tokenizers, or this one's ids may lie beyond ``other``'s.
        """
        one_tokenizer([source.facts for stream in (other, self) for source in stream.sources])
        known = other.vocabulary
        for source in self.sources:
            own = source.facts.vocabulary
            if own is not None and known is not None and own > known:
                raise UserError(
                    f"{source.facts.name} has a vocabulary of {own}, the data that is trained on one of {known}; "
                    "pack it again with the tokenizer of the training data"
                )

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of text a token stands for, over the sources' shares; None: a source doesn't know, or shares change."""
        if self._staged:
            return None
        total = 0.0
        for source, share in zip(self.sources, self._shares, strict=True):
            if source.facts.bytes_per_token is None:
                return None
            total += share * source.facts.bytes_per_token
        return total

    def counts(self, sample: int) -> list[int]:
        """Of the samples before ``sample``, those of each source: [sources], exact."""
        total: Indices = np.zeros(len(self.sources), dtype=np.int64)
        for piece in self.shapes.pieces:
            taken = int(min(sample, self.shapes.end(piece))) - piece.sample
            if taken > 0:
                whole, rest = divmod(taken, piece.parts)
                before, after = (self._order.counts(place) for place in (piece.place, piece.place + whole))
                total += (after - before) * piece.parts
                if rest:
                    total[int(self._order.places(piece.place + whole, 1).source[0])] += rest
        return [int(count) for count in total]

    def describe(self, samples: int) -> list[Share]:
        """What each source contributes to a run of ``samples``, with a warning where it repeats much."""
        rows: list[Share] = []
        places = self._order.counts(int(self.shapes.place(samples)))
        for source, share in zip(self.sources, self._shares, strict=True):
            if self._staged:
                share = places[len(rows)] / max(places.sum(), 1)
            epochs = self.shapes.place(samples) * share / len(source)
            warning = f"repeated {epochs:.1f} times" if epochs > self._most_epochs else ""
            facts = source.facts
            rows.append(Share(facts.name, facts.tokens, len(source), share, epochs, warning, facts.note))
        return rows


def one_tokenizer(sources: Sequence[Facts]) -> str | None:
    """The digest of the tokenizer that made all of ``sources``; None: none of them knows it.

    Raises:
        UserError: where two were made by different ones.
    """
    known = [facts for facts in sources if facts.tokenizer_digest]
    for facts in known:
        if facts.tokenizer_digest != known[0].tokenizer_digest:
            raise UserError(
                f"{facts.name} and {known[0].name} were made with different tokenizers: the same id means other "
                "text in each; pack one of them again with the other's"
            )
    return known[0].tokenizer_digest if known else None


def _fill(batch: Batch, rows: Indices, samples: Samples) -> None:
    """Puts a source's samples into their ``rows`` [..] of the batch."""
    batch.tokens[rows] = samples.tokens
    if samples.recent is not None:
        batch.recent[rows] = np.minimum(batch.recent[rows], samples.recent)
    weights = samples.weights
    if weights is not None and batch.weights is not None and weights.shape[1] < batch.weights.shape[1]:
        batch.weights[rows] = 0.0
        batch.weights[rows, -weights.shape[1] :] = weights
        weights = None
    for into, given in (
        (batch.weights, weights),
        (batch.documents, samples.documents),
        (batch.positions, samples.positions),
        (batch.recent_end, samples.recent_end),
    ):
        if given is not None:
            if into is None:
                raise ValueError(
                    "a source gives weights, documents, positions or ends of R now, but gave none with its sample 0"
                )
            into[rows] = given


def _fits(source: Source, samples: Samples, window: Window) -> None:
    """Asserts that a source was made for the window, by its sample 0."""
    rows = window.rows
    wanted = {
        "tokens": (window.tokens,),
        "weights": (window.stride, rows),
        "documents": (rows,),
        "positions": (rows,),
        "recent_end": (rows,),
    }
    for what, lengths in wanted.items():
        array = getattr(samples, what)
        if array is not None and (array.ndim != 2 or array.shape[1] not in lengths):
            raise ValueError(
                f"{source.facts.name} gives {what} of shape {array.shape[1:]} a sample; "
                f"the window {window} wants {' or '.join(f'({length},)' for length in lengths)}"
            )
    if samples.tokens.dtype.kind not in "iu":
        raise ValueError(f"{source.facts.name} gives tokens of type {samples.tokens.dtype}")
