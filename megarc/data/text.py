"""Files of text as a source: windows of tokens that are packed while they are read.

The sections of the text (``megarc.corpus.streamed``), end to end, are one long text, and its windows begin every
stride, as those of a corpus do. In the first epoch sections come one after the other, and the windows that end in a
section come in random order: nothing is waited for but the section itself. Later epochs permute all windows.

Which sample comes when depends on the files, the tokenizer, the seed and the sample's number alone, not on how far
packing is, on ranks or on workers. So there is no state to save: resuming is asking for another number.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from megarc.config import Config, build, key
from megarc.corpus import PackSettings, StreamedText, TextRequest
from megarc.corpus.streamed.sections import Text
from megarc.data.config import DataConfig, SourceConfig
from megarc.data.counter_random import key_of
from megarc.data.permutation import Permutation
from megarc.data.source import Facts, Indices, Sample, Samples, Turns
from megarc.errors import UserError
from megarc.window import Window

_PACK = "pack it first with data_tools/preprocess.py"


class TextConfig(Config):
    """The options of a source of kind text."""

    end_of_document: bool = key(True, "each document ends with a token of its own")
    eod_token: str | None = key(None, "that token, or its id; null: as the tokenizer's files say")
    shuffle_seed: int | None = key(
        0, "of the order of sections and documents; null: the files' order", ge=0, lt=2**64
    )
    exclude: list[str] = key([], "patterns of files to leave out")
    format: Literal["jsonl", "json", "text", "parquet", "arrow", "tar"] | None = key(
        None, "how to read every file; null: as its name says"
    )
    max_bad: float = key(0.001, "the share of lines that may be bad", ge=0, le=1)
    section: int = key(
        4 << 20,
        "bytes of text that are shuffled together at first, and packed before the first step; later ones grow to 16 "
        "times as much",
        ge=1,
    )
    shortest: int = key(0, "leave out documents of fewer bytes", ge=0)
    longest: int | None = key(None, "leave out documents of more bytes")


class TextSource:
    """The windows of a text, in the order of its sections.

    Args:
        isolate: make batches that say which document each row belongs to.
        whole: wait until all is packed: how many windows there are is then exact.

    Raises:
        UserError: where the text has no whole window. Also while reading: for bad input further on.
    """

    def __init__(
        self, text: StreamedText, window: Window, *, isolate: bool = False, whole: bool = False
    ) -> None:
        self.text, self.window, self._isolate = text, window, isolate
        self.digest = f"text:{text.text.digest}"
        if whole:
            text.require_all()
        self._behind: list[int] = []  # windows up to the end of each section
        self._count_until(0)  # raises for a text without a window
        tokenizer = text.text.tokenizer
        self.facts = Facts(
            text.text.request.path,
            tokens=text.ends[-1] if text.whole else None,
            documents=text.documents if text.whole else None,
            bytes_per_token=text.bytes_per_token,
            vocabulary=tokenizer.vocabulary_size,
            tokenizer_digest=tokenizer.digest,
            reserved=tokenizer.reserved,
            note=""
            if text.whole
            else f"packed while it is read: {len(text.ends)} of {len(text.text.sections)} sections",
        )

    def __len__(self) -> int:
        """Windows of an epoch; estimated by bytes until all of the text is known."""
        if self.text.whole:
            return self.window.count(self.text.ends[-1])
        sizes = [sum(span.stop - span.start for span in section) for section in self.text.text.sections]
        known = len(self.text.ends)
        tokens = self.text.ends[-1] * sum(sizes) / max(sum(sizes[:known]), 1)
        return max(self.window.count(round(tokens)), 1)

    def turns(self, key: int) -> Turns:
        """The windows of a section, one section after the other; from the second epoch on all of them at random."""

        def numbers(turns: Indices) -> Indices:
            count = self._count_until(int(turns.max()))
            found = np.empty_like(turns)
            later = turns >= count  # then the whole text is known
            if later.any():
                epoch, place = np.divmod(turns[later], count)
                found[later] = Permutation(count, key)(place, epoch)
            section: Indices = np.searchsorted(np.asarray(self._behind), turns, side="right").astype(np.int64)
            for which in np.unique(section[~later]).tolist():
                mine = (section == which) & ~later
                before = self._behind[which - 1] if which else 0
                inside = Permutation(self._behind[which] - before, key_of("section", key, which))
                found[mine] = before + inside(turns[mine] - before)
            return found

        return numbers

    def read(self, k: int) -> Sample:
        """Window k."""
        samples = self.read_many(np.asarray([k], dtype=np.int64))
        return Sample(
            samples.tokens[0], documents=None if samples.documents is None else samples.documents[0]
        )

    def read_many(self, k: Indices) -> Samples:
        """Windows k [B], once they are packed."""
        self._count_until(int(k.max()))
        starts = k * self.window.stride
        documents = self.text.segments(starts, self.window.rows) if self._isolate else None
        return Samples(self.text.read(starts, self.window.tokens), documents=documents)

    def located(self, k: int) -> str:
        """The file and the place in it of the document that window k begins with, and its tokens' numbers."""
        self._count_until(k)
        first = k * self.window.stride
        return f"{self.text.document_at(first)}, tokens {first} to {first + self.window.rows}"

    def _count_until(self, k: int) -> int:
        """How many windows are known, once window ``k`` is, or all are."""
        sections = len(self.text.text.sections)
        while not self._behind or (self._behind[-1] <= k and len(self._behind) < sections):
            section = len(self._behind)
            self.text.require(section)
            self._behind.append(self.window.count(self.text.ends[section]))
        if not self._behind[-1]:
            raise UserError(
                f"{self.text.text.request.path}: a window {self.window} reads {self.window.tokens} tokens and there "
                f"are only {self.text.ends[-1]}; make the window shorter or give more text"
            )
        return self._behind[-1]


def open_text(
    config: SourceConfig, window: Window, data: DataConfig, *, isolate: bool, whole: bool
) -> TextSource:
    """The source that ``config`` names.

    Raises:
        UserError: for keys that text does not have, and as ``TextSource``.
    """
    if config.path is None or config.tokenizer is None:
        missing = "path" if config.path is None else "tokenizer"
        raise UserError(
            f"a source of kind text needs a {missing}: {{kind: text, path: FILES, text: KEY, tokenizer: FILE}}"
        )
    if data.packs:
        raise UserError(f"data.packing is {data.packing}, and text is read by windows; {_PACK}")
    if config.part != (0.0, 1.0):
        raise UserError(f"part of a text is not known before it is packed; {_PACK}")
    options = build(TextConfig, config.options, "options of a source of kind text")
    text = Text.of(_request(config, options))
    return TextSource(StreamedText(text, data.cache, data.workers), window, isolate=isolate, whole=whole)


def _request(config: SourceConfig, options: TextConfig) -> TextRequest:
    settings: dict[str, Any] = {
        "json_key": config.text or "text",
        "format": options.format,
        "append_end_of_document": options.end_of_document,
        "shuffle_seed": options.shuffle_seed,
        "shortest": options.shortest,
        "longest": options.longest,
    }
    return TextRequest(
        path=str(config.path),
        tokenizer=str(config.tokenizer),
        settings=PackSettings(**settings),
        eod_token=options.eod_token,
        exclude=options.exclude,
        max_bad=options.max_bad,
        section=options.section,
    )
