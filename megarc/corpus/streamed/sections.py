"""Which part of the inputs is packed when: a function of the files, the tokenizer and the settings alone.

The inputs are cut into spans of a few MiB, the spans are put in a random order, and neighbours in that order make a
*section*. Packing sorts a section's documents by their random keys, as it does all documents when text is packed
first. The first sections are small, so that training begins soon; later ones mix more of the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from megarc.config import Config, key
from megarc.corpus.indexed.digest import LEAF_BYTES
from megarc.corpus.indexed.manifest import PackSettings
from megarc.corpus.inputs.byte_range import Piece
from megarc.corpus.inputs.find_files import Input, find_inputs, in_words
from megarc.corpus.inputs.split_files import cut
from megarc.corpus.packing.document_keys import mixed
from megarc.corpus.packing.pack_piece import Job
from megarc.corpus.packing.shard import Plan
from megarc.corpus.tokenizer import Tokenizer, load_tokenizer
from megarc.errors import UserError

_GROWTH = 16  # of sections, from the first to the largest
_SPANS = 4096  # that a large text is cut into, at least
_LARGEST_SPAN = 16 * LEAF_BYTES
_EXPANSION = 4  # of compressed text, roughly
_SAMPLED_BYTES = 4096  # at three places of each file


class TextRequest(Config):
    """What is packed, and how."""

    path: str = key(meaning="a file, a folder, a pattern, or @LIST")
    tokenizer: str = key(meaning="its file, or: bytes")
    settings: PackSettings = key(PackSettings, "as of packing")
    eod_token: str | None = key(None, "that ends a document; null: as the tokenizer's files say")
    exclude: list[str] = key([], "files to leave out")
    max_bad: float = key(0.001, "the share of lines that may be bad")
    section: int = key(
        4 << 20, "bytes of text in the first section; later ones grow to 16 times as much", ge=1
    )


@dataclass(frozen=True)
class Text:
    """The inputs of a request and what becomes of them.

    Attributes:
        sections: spans of the inputs, in the order in which they are packed.
        digest: of the inputs' names, sizes and sampled contents, the tokenizer and the settings.
    """

    request: TextRequest
    inputs: list[Input]
    sections: list[Piece]
    tokenizer: Tokenizer
    plan: Plan
    digest: str

    @classmethod
    def of(cls, request: TextRequest, say: Callable[[str], None] = lambda line: None) -> Text:
        """
        Raises:
            UserError: where there is nothing to read, or the tokenizer or an input cannot be.
        """
        tokenizer = load_tokenizer(request.tokenizer, request.eod_token)
        if request.settings.append_end_of_document:
            _ = tokenizer.end_of_document  # raises where there is none
        inputs, passed = find_inputs([request.path], request.exclude, request.settings.format)
        if passed:
            say(f"{request.path}: skipped: {in_words(passed)}")
        if any(not file.sized for file in inputs):
            raise UserError(
                f"{request.path} is a stream that can be read only once; write it to a file first"
            )
        sections = _sections(inputs, request.settings.shuffle_seed, request.section)
        plan = Plan(
            inputs=[(file.name, file.bytes) for file in inputs],
            pieces=len(sections),
            tokenizer=tokenizer.facts(),
            settings=request.settings,
        )
        digest = hashlib.sha256(f"megarc streamed text 1:{plan.digest}".encode())
        for file in inputs:
            digest.update(_sampled(file))
        digest.update(
            orjson.dumps([[(span.input, span.start, span.stop) for span in one] for one in sections])
        )
        return cls(request, inputs, sections, tokenizer, plan, digest.hexdigest())

    def job(self, folder: Path, tokenizer: Tokenizer | None = None) -> Job:
        """The packing job whose pieces are the sections, in ``folder``."""
        encoder = tokenizer or self.tokenizer
        return Job(self.inputs, self.sections, encoder, self.request.settings, self.plan.digest, folder)


def _sections(inputs: Sequence[Input], seed: int | None, first: int) -> list[Piece]:
    total = sum(file.bytes for file in inputs)
    limit = min(max(total // _SPANS // LEAF_BYTES, 1) * LEAF_BYTES, _LARGEST_SPAN, first)
    pieces = cut(inputs, limit)  # a big file's ranges; small files together
    if seed is not None:
        keys = mixed(np.arange(len(pieces), dtype=np.uint64) + mixed(np.full(1, seed, np.uint64)))
        pieces = [pieces[number] for number in np.argsort(keys, kind="stable").tolist()]
    most = max(_GROWTH * first, _GROWTH * limit)
    sections: list[Piece] = []
    spans: list[Piece] = []
    size, wanted = 0.0, first
    for piece in pieces:
        spans.append(piece)
        size += sum(
            span.content or (span.stop - span.start) * (_EXPANSION if inputs[span.input].compression else 1)
            for span in piece
        )
        if size >= wanted:
            sections.append(tuple(span for one in spans for span in one))
            spans, size, wanted = [], 0.0, min(2 * wanted, most)
    return [*sections, tuple(span for one in spans for span in one)] if spans else sections


def _sampled(file: Input) -> bytes:
    """SHA-256 of a file's size, beginning, middle and end."""
    digest = hashlib.sha256(file.bytes.to_bytes(8, "little"))
    try:
        with file.path.open("rb") as stored:
            for place in (0, file.bytes // 2, max(file.bytes - _SAMPLED_BYTES, 0)):
                stored.seek(place)
                digest.update(stored.read(_SAMPLED_BYTES))
    except OSError as error:
        raise UserError(f"{file.name} cannot be read: {error.strerror}") from None
    return digest.digest()
