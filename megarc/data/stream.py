"""Sources in an order: any run of samples, as a batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from megarc.data.batches import Batch
from megarc.data.draws import digest_of
from megarc.data.order import Order
from megarc.data.permutation import RANKED
from megarc.data.recent import ShortRecent
from megarc.data.source import Facts, Indices, Samples, Segments, Source, Weights, read_many
from megarc.data.windows import StridedCorpus
from megarc.errors import UserError
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
        shares: each source's part of the samples [sources].
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
    ) -> None:
        self.window = window
        self.sources = list(sources)
        self._order, self._shares = order, list(shares)
        self._short_recent = short_recent if window.recent and short_recent else None
        self._most_epochs = most_epochs
        first = [read_many(source, np.zeros(1, dtype=np.int64), window) for source in self.sources]
        for source, samples in zip(self.sources, first, strict=True):
            _fits(source, samples, window)
        # The same for every batch of the stream, so that all ranks agree without asking each other.
        widths = [samples.weights.shape[1] for samples in first if samples.weights is not None]
        self.weighted = max(widths, default=0)  # rows that weights are given of: none, s or n
        self.isolated = any(samples.documents is not None for samples in first)
        self.placed = any(samples.positions is not None for samples in first)
        self.split = any(samples.recent_end is not None for samples in first)

    # ---- reading

    def __len__(self) -> int:
        """How many samples: the windows of held-out data; 2**62, so no end, where it is trained on."""
        return len(self._order)

    def in_phase(self, phase: int) -> Stream:
        """The same sources in the order of another phase, which begins at sample 0."""
        other = copy.copy(self)
        other._order = self._order.in_phase(phase)
        other._short_recent = self._short_recent and replace(self._short_recent, phase=phase)
        return other

    def read(self, first: int, count: int, out: npt.NDArray[np.int32] | None = None) -> Batch:
        """Samples first .. first + count - 1.

        Args:
            out: [count, n + 1], where the tokens shall lie (page-locked memory, say); None: a new array.
        """
        if first < 0 or count < 1 or first + count > len(self):
            raise IndexError(f"{count} samples from {first} on, of {len(self)}")
        window = self.window
        source, number = self._order.places(first, count)
        samples: Indices = np.arange(first, first + count, dtype=np.int64)
        batch = Batch(
            tokens=np.empty((count, window.tokens), dtype=np.int32) if out is None else out,
            recent=self._recent(samples),
            samples=samples,
            weights=self._plain_weights(count) if self.weighted else None,
            documents=np.zeros((count, window.rows), dtype=np.int32) if self.isolated else None,
            positions=self._row_numbers(count) if self.placed else None,
            recent_end=self._recent_ends(samples) if self.split else None,
        )
        for which in np.unique(source) if len(self.sources) > 1 else [0]:
            rows = np.nonzero(source == which)[0]
            _fill(batch, rows, read_many(self.sources[which], number[rows], window))
        return batch

    def _recent(self, samples: Indices) -> Segments:
        if self._short_recent:
            return self._short_recent.draw(samples, self.window.recent)
        return np.full(len(samples), self.window.recent, dtype=np.int32)

    def _recent_ends(self, samples: Indices) -> Segments:
        """Of samples whose source gives none: the end of R of the whole window."""
        return np.repeat(self._recent(samples)[:, None], self.window.rows, axis=1)

    def _plain_weights(self, count: int) -> Weights:
        """Of samples whose source gives none: 1 on the window's loss rows."""
        weights: Weights = np.zeros((count, self.weighted), dtype=np.float32)
        weights[:, -self.window.stride :] = 1.0
        return weights

    def _row_numbers(self, count: int) -> Segments:
        rows: Segments = np.arange(self.window.rows, dtype=np.int32)
        return np.broadcast_to(rows, (count, self.window.rows)).copy()

    def check_ids(self, batch: Batch, vocabulary: int) -> None:
        """That all token ids of a batch of this stream lie below ``vocabulary``.

        Raises:
            UserError: naming the source, the sample, the place in it and the id.
        """
        if batch.tokens.max() < vocabulary and batch.tokens.min() >= 0:
            return
        row, column = np.argwhere((batch.tokens >= vocabulary) | (batch.tokens < 0))[0]
        sample = int(batch.samples[row])
        source, number = self._order.places(sample, 1)
        which, window = self.sources[int(source[0])], int(number[0])
        token = (
            f", token {which.first(window) + column} of the corpus"
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
        return digest_of(self._order.digest, self.window.rows, self.window.stride)

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
        """Bytes of text a token stands for, over the sources' shares; None: a source doesn't know."""
        total = 0.0
        for source, share in zip(self.sources, self._shares, strict=True):
            if source.facts.bytes_per_token is None:
                return None
            total += share * source.facts.bytes_per_token
        return total

    def describe(self, samples: int) -> list[Share]:
        """What each source contributes to a run of ``samples``, with a warning where it repeats much."""
        rows = []
        for source, share in zip(self.sources, self._shares, strict=True):
            epochs = samples * share / len(source)
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
                    "a source gives weights, documents, positions or ends of R now, and gave none with its sample 0"
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
