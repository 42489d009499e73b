"""A whole corpus to transcripts: documents in parallel, written in order, counted."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from megarc.atomic_write import written_atomically
from megarc.corpus.inputs.document_fields import Choice
from megarc.corpus.inputs.documents import read_span
from megarc.corpus.inputs.find_files import Input, find_inputs
from megarc.corpus.inputs.split_files import cut
from megarc.errors import UserError
from megarc.interpreter.languages import Language
from megarc.interpreter.sandbox import Sandbox
from megarc.interpreter.transcripts.output_cache import Cache
from megarc.interpreter.transcripts.transcribe import Settings, Transcript, transcribe
from megarc.progress import Estimate, progress, rate_in_words

_AHEAD = 4  # documents a worker that may wait for one before them

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Request:
    """
    Attributes:
        inputs: as ``preprocess.py`` takes them.
        output: JSON lines; the cache and the report lie beside it.
        whole: write documents without a kept piece too.
    """

    inputs: Sequence[str]
    output: Path
    languages: Mapping[str, Language]
    sandbox: Sandbox
    settings: Settings = field(default_factory=Settings)
    workers: int = 1
    exclude: Sequence[str] = ()
    json_key: str = "text"
    whole: bool = False

    @property
    def cache(self) -> Path:
        return Path(f"{self.output}.cache")

    @property
    def report(self) -> Path:
        return Path(f"{self.output}.report.json")


@dataclass(slots=True)
class Report:
    """Counts: of documents, of bad lines and files, and of pieces by language and what became of them.

    Attributes:
        first_reject: where the first bad line or file stands, and what is wrong with it.
    """

    documents: int = 0
    written: int = 0
    rejects: int = 0
    first_reject: str = ""
    pieces: Counter[tuple[str, str]] = field(default_factory=Counter)

    def rows(self) -> list[list[object]]:
        """A table's: language, what became of its pieces, how many."""
        return [[language, what, count] for (language, what), count in sorted(self.pieces.items())]

    def rejected(self) -> str:
        """Bad lines and files in one line; empty where there are none."""
        if not self.rejects:
            return ""
        return f"{self.rejects} bad lines or files were passed over; the first: {self.first_reject}"


def interpret(request: Request) -> Report:
    """Writes ``request.output``, whole or not at all. What a killed job has run is in the cache.

    Raises:
        UserError: where there is nothing to read, no code in it, or an interpreter does not start.
    """
    if request.workers < 1:
        raise UserError(f"{request.workers} workers; there must be 1 or more")
    inputs, _ = find_inputs(request.inputs, request.exclude)
    cache, report = Cache(request.cache), Report()
    total, pieces = sum(file.bytes for file in inputs), Estimate(None)

    def work(document: tuple[str, str]) -> tuple[str, str, Transcript]:
        name, text = document
        made = transcribe(text, name, request.languages, request.sandbox, cache, request.settings)
        return name, text, made

    with written_atomically(request.output) as file, progress("interpreting", total, unit="B") as bar:
        documents = _documents(inputs, request.json_key, report)
        for name, text, made in _in_order(work, documents, request.workers):
            report.documents += 1
            report.pieces += made.pieces
            pieces.advance(made.pieces.total())
            bar.advance(len(text.encode()), pieces=f"{pieces.done:.0f}, {rate_in_words(pieces, 'pieces')}")
            if made.kept or request.whole:
                report.written += 1
                line = {"text": made.marked, "source": name, "pieces": made.kept}
                file.write(orjson.dumps(line) + b"\n")
        if not report.pieces:
            rejected = report.rejected()
            raise UserError(
                f"there is no code in {', '.join(request.languages)} in the {report.documents} documents of "
                f"{', '.join(request.inputs)}{rejected and f' ({rejected})'}"
            )
    with written_atomically(request.report) as file:
        file.write(orjson.dumps(_facts(report), option=orjson.OPT_INDENT_2) + b"\n")
    return report


def _facts(report: Report) -> dict[str, Any]:
    pieces: dict[str, dict[str, int]] = {}
    for language, what, count in report.rows():
        pieces.setdefault(str(language), {})[str(what)] = count  # type: ignore[assignment]
    return {
        "documents": report.documents,
        "written": report.written,
        "bad lines": report.rejects,
        "pieces": pieces,
    }


def _documents(inputs: list[Input], json_key: str, report: Report) -> Iterator[tuple[str, str]]:
    """Name and text of each document, in order."""
    for piece in cut(inputs):
        for span in piece:
            file = inputs[span.input]
            several = file.format != "text"
            for block in read_span(file, span, Choice(json_key)):
                if block.rejects and not report.rejects:
                    first = block.rejects[0]
                    report.first_reject = f"{file.name}:{first.byte if several else ''} {first.reason}"
                report.rejects += len(block.rejects)
                for text, offset in zip(block.texts, block.offsets, strict=True):
                    yield (f"{file.name}:{offset}" if several else file.name), text


def _in_order(work: Callable[[ItemT], ResultT], items: Iterable[ItemT], workers: int) -> Iterator[ResultT]:
    """``work`` of each item by ``workers`` threads, in the items' order, a few ahead.

    A sandbox ends with the thread that started it, so a killed job leaves none behind.
    """
    waiting: deque[Future[ResultT]] = deque()
    stopped = threading.Event()

    def unless_stopped(item: ItemT) -> ResultT:
        if stopped.is_set():
            raise UserError("stopped")
        return work(item)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(unless_stopped, item))
                if len(waiting) >= workers * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stopped.set()
