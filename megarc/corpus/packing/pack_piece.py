"""What a worker does: one piece of the inputs -> shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megarc.corpus.indexed.corpus import dtype_for
from megarc.corpus.indexed.digest import leaf_digests
from megarc.corpus.indexed.manifest import PackSettings
from megarc.corpus.inputs.byte_range import Block, Piece, Reject, Span
from megarc.corpus.inputs.document_fields import Choice
from megarc.corpus.inputs.documents import read_span
from megarc.corpus.inputs.find_files import Input
from megarc.corpus.packing.document_keys import order_keys, text_hashes
from megarc.corpus.packing.shard import RECORD, Batch, SpanFacts, write_shard
from megarc.corpus.tokenizer import Tokenizer
from megarc.corpus.transcript import Unbalanced, parse_marked

UNBALANCED = "marks of a transcript do not fit together"
_TOKENS_A_SHARD = 4_000_000
_LONG = 256  # tokens of a document
_REJECTS_SHOWN = 20_000  # of a span; the others are counted

Tell = Callable[["News"], None]


@dataclass(frozen=True, slots=True)
class News:
    """What a worker has done since its last word."""

    bytes: int = 0
    tokens: int = 0
    lines: int = 0
    rejects: int = 0


@dataclass(frozen=True)
class Job:
    """All that the workers of one job share."""

    inputs: list[Input]
    pieces: list[Piece]
    tokenizer: Tokenizer
    settings: PackSettings
    plan: str
    folder: Path

    def shard_path(self, piece: int, number: int, *, last: bool) -> Path:
        return self.folder / f"{piece:08d}-{number:04d}{'-last' if last else ''}.shard"

    def shards(self, piece: int) -> list[Path]:
        """The shards of a piece that is whole; nothing where it is not."""
        paths = sorted(self.folder.glob(f"{piece:08d}-*.shard"))
        whole = bool(paths) and paths[-1].stem.endswith("-last")
        return paths if whole and int(paths[-1].stem.split("-")[1]) == len(paths) - 1 else []

    def describe(self, piece: int) -> str:
        spans = self.pieces[piece]
        first = f"{self.inputs[spans[0].input].name}, bytes {spans[0].start} to {spans[0].stop}"
        return first if len(spans) == 1 else f"{first} and {len(spans) - 1} more files"


def pack_piece(job: Job, piece: int, tell: Tell) -> None:
    """Reads, encodes, sorts and writes one piece; its last shard's name says that it is whole."""
    output = _Output(job, piece)
    for span in job.pieces[piece]:
        _pack_span(job, span, output, tell)
    output.end()


def _pack_span(job: Job, span: Span, output: _Output, tell: Tell) -> None:
    file = job.inputs[span.input]
    settings = job.settings
    choice = Choice(
        settings.json_key, settings.recent_key, settings.causal_key, settings.chat_key, settings.separator
    )
    found = SpanFacts(input=span.input, start=span.start, lines=0, documents=0, rejects=0)
    lines = documents = rejects = reported = 0
    shown: list[tuple[int, int, str]] = []
    for block in read_span(file, span, choice):
        records, tokens = _encode(job, span.input, block, output.dropped, lines)
        shown += [(bad.line, bad.byte, bad.reason) for bad in block.rejects][: _REJECTS_SHOWN - len(shown)]
        rejects += len(block.rejects)
        lines += block.lines
        documents += len(records)
        output.take(records, tokens)
        # A guess, put right below; of a stream whose size nobody knows, the characters.
        advance = min(block.characters, span.stop - span.start - reported) if file.sized else block.characters
        reported += advance
        tell(News(advance, len(tokens), block.lines, len(block.rejects)))
    leaves = (
        leaf_digests(file.path, span.start, span.stop)
        if file.name != "-" and isinstance(file.path, Path)
        else []
    )
    facts = {"lines": lines, "documents": documents, "rejects": rejects, "shown": shown, "leaves": leaves}
    output.spans.append(found.model_copy(update=facts))
    tell(News(bytes=span.stop - span.start - reported if file.sized else 0))


def _encode(job: Job, number: int, block: Block, dropped: Counter[str], line: int) -> Batch:
    """A block's documents, in input order; ``line`` is the number of its first line in the span."""
    settings = job.settings
    if settings.shortest or settings.longest is not None:
        sizes = _sizes(block.texts)
        longest = float("inf") if settings.longest is None else settings.longest
        dropped["too short"] += sum(size < settings.shortest for size in sizes)
        dropped["too long"] += sum(size > longest for size in sizes)
        block.keep([settings.shortest <= size <= longest for size in sizes])
    if settings.transcripts:
        balanced = [_balanced(text) for text in block.texts]
        dropped[UNBALANCED] += len(balanced) - sum(balanced)
        block.keep(balanced)
    tokens, lengths, answers = _tokens_of(job, block, line)
    dtype = dtype_for(job.tokenizer.vocabulary_size)
    if settings.append_end_of_document:
        tokens, lengths = append_to_each(tokens, lengths, job.tokenizer.end_of_document, dtype)
    records: npt.NDArray[Any] = np.zeros(len(block.texts), RECORD)
    records["offset"] = block.offsets
    records["bytes"] = _sizes(block.texts)
    records["answer"] = answers
    records["input"] = number
    records["tokens"] = lengths
    records["key"] = order_keys(records, settings.shuffle_seed)
    if settings.drop_duplicates or settings.splits:
        records["hash"] = text_hashes(block.texts)
    return records, tokens.astype(dtype, copy=False)


def _sizes(texts: list[str]) -> list[int]:
    return [len(text) if text.isascii() else len(text.encode()) for text in texts]


def _tokens_of(job: Job, block: Block, line: int) -> tuple[Any, Any, Any]:
    """Tokens of a block's documents end to end, each one's count, and the tokens before its answer.

    Question and answer are encoded apart, so that the answer begins with a token of its own, as it does
    when a model continues a question. An answer that is too long becomes a bad line.
    """
    if not job.settings.divided:
        return *job.tokenizer.encode_documents(block.texts), 0
    halves = [
        half
        for text, border in zip(block.texts, block.borders, strict=True)
        for half in (text[:border], text[border:])
    ]
    tokens, lengths = job.tokenizer.encode_documents(halves)
    pairs = lengths.reshape(-1, 2)
    longest = job.settings.longest_answer
    if longest is not None and (long := pairs[:, 1] > longest).any():
        for place in np.flatnonzero(long):
            reason = f"an answer of {pairs[place, 1]} tokens, more than {longest}"
            block.rejects.append(Reject(line + block.numbers[place], block.offsets[place], reason))
        block.rejects.sort(key=lambda bad: bad.line)
        tokens = gathered(pairs.sum(axis=1), tokens, np.flatnonzero(~long))
        pairs = pairs[~long]
        block.keep((~long).tolist())
    return tokens, pairs.sum(axis=1), pairs[:, 0]


def _balanced(text: str) -> bool:
    try:
        parse_marked(text)
    except Unbalanced:
        return False
    return True


def append_to_each(tokens: Any, lengths: Any, end: int, dtype: Any = None) -> tuple[Any, Any]:
    """``end`` after each document, but for empty ones: as Megatron does; tokens of ``dtype`` (None: as they are)."""
    longer = lengths + (lengths > 0)
    if len(tokens) > _LONG * len(lengths):  # a mask takes longer than slices of long documents
        last = np.full(1, end, tokens.dtype)
        texts = np.split(tokens, np.cumsum(lengths, dtype=np.int64)[:-1])
        parts = [part for text in texts if len(text) for part in (text, last)]
        return np.concatenate(parts, dtype=dtype or tokens.dtype, casting="unsafe"), longer
    ends = np.cumsum(longer, dtype=np.int64)[lengths > 0] - 1
    result = np.full(int(longer.sum(dtype=np.int64)), end, dtype or tokens.dtype)
    text: npt.NDArray[np.bool_] = np.ones(len(result), np.bool_)
    text[ends] = False
    result[text] = tokens
    return result, longer


@dataclass
class _Output:
    """Documents of a piece that wait to be written; spills a shard when they are many."""

    job: Job
    piece: int
    spans: list[SpanFacts] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    records: list[Any] = field(default_factory=list)
    tokens: list[Any] = field(default_factory=list)
    waiting: int = 0
    written: int = 0

    def take(self, records: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> None:
        self.records.append(records)
        self.tokens.append(tokens)
        self.waiting += len(tokens)
        if self.waiting >= _TOKENS_A_SHARD:
            self._write(last=False)

    def end(self) -> None:
        self._write(last=True)

    def _write(self, *, last: bool) -> None:
        dtype = dtype_for(self.job.tokenizer.vocabulary_size)
        records = np.concatenate([np.empty(0, RECORD), *self.records])
        tokens = (
            self.tokens[0] if len(self.tokens) == 1 else np.concatenate([np.empty(0, dtype), *self.tokens])
        )
        facts = {
            "plan": self.job.plan,
            "pieces": [self.piece] if last else [],
            "spans": self.spans if last else [],
            "dropped": dict(self.dropped) if last else {},
        }
        batch = arranged(records, tokens)
        write_shard(self.job.shard_path(self.piece, self.written, last=last), [batch], dtype, facts)
        self.records, self.tokens, self.waiting = [], [], 0
        self.written += 1


def arranged(records: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> Batch:
    """Documents whose tokens lie end to end, put in order of key, input and offset."""
    order = np.lexsort((records["offset"], records["input"], records["key"]))
    if (np.diff(order) == 1).all():
        return records, tokens
    return records[order], gathered(records["tokens"], tokens, order)


def gathered(
    lengths: npt.NDArray[Any], tokens: npt.NDArray[Any], order: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """The tokens of the documents ``order``, of documents that lie end to end."""
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = ends - lengths
    pairs = zip(starts[order].tolist(), ends[order].tolist(), strict=True)
    return np.concatenate([tokens[:0], *(tokens[start:end] for start, end in pairs)])
