"""Reads the documents of a span: texts and where each begins, and the bad lines among them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import orjson

from megarc.corpus.inputs.byte_range import Block, Span
from megarc.corpus.inputs.decompress import open_stream
from megarc.corpus.inputs.document_fields import BadLineError, Choice
from megarc.corpus.inputs.find_files import Input
from megarc.corpus.inputs.json_list import json_list_elements
from megarc.corpus.inputs.lines import lines_of

_BOM = b"\xef\xbb\xbf"


def read_span(file: Input, span: Span, choice: Choice) -> Iterator[Block]:
    """The documents that begin in ``span``, in order, in blocks of about a million characters.

    Raises:
        UserError: for a file that cannot be read to its end.
    """
    if file.format == "jsonl":
        return _read_lines(file, span, choice)
    if file.format == "json":
        return _read_json(file, span, choice)
    if file.format == "parquet":
        from megarc.corpus.inputs.parquet import read_rows

        return read_rows(file, span, choice)
    if file.format == "arrow":
        from megarc.corpus.inputs.arrow import read_batches

        return read_batches(file, span, choice)
    if file.format == "tar":
        from megarc.corpus.inputs.webdataset import read_samples

        return read_samples(file, choice)
    return _read_text(file, choice)


def _read_lines(file: Input, span: Span, choice: Choice) -> Iterator[Block]:
    block, number = Block(), 0
    with open_stream(file, span.start) as stream:
        for offset, line, ended in lines_of(stream, span.offset, span.content):
            if offset == 0:
                line = line.removeprefix(_BOM)
            number += 1
            if not line.strip():
                block.lines += 1  # a blank line is no document, and no mistake
                continue
            try:
                block.take(*_document_of(line, choice), offset)
            except BadLineError as error:
                cut = not ended and isinstance(error, _MalformedLineError)
                block.reject(number - 1, offset, f"truncated last line ({error})" if cut else str(error))
            if block.full():
                yield block
                block = Block()
    yield block


def _read_json(file: Input, span: Span, choice: Choice) -> Iterator[Block]:
    """A list of objects or strings; a file that holds lines of JSON in spite of its name is read as such."""
    with open_stream(file) as stream:
        head = stream.read(64).removeprefix(_BOM).lstrip()[:1]
    if head != b"[":
        yield from _read_lines(file, span, choice)
        return
    block = Block()
    with open_stream(file) as stream:
        for number, (offset, element) in enumerate(json_list_elements(stream, file.name)):
            try:
                block.take(*_whole(choice.pick(element)), offset)
            except BadLineError as error:
                block.reject(number, offset, str(error))
            if block.full():
                yield block
                block = Block()
    yield block


def _read_text(file: Input, choice: Choice) -> Iterator[Block]:
    with open_stream(file) as stream:
        data = stream.read().removeprefix(_BOM)
    block = Block()
    try:
        if b"\0" in data:
            raise BadLineError(f"not text: a NUL at byte {data.index(0)} (a binary or UTF-16 file?)")
        block.take(*choice.divide(_decode(data)), 0)
    except BadLineError as error:
        block.reject(0, 0, str(error))
    yield block


class _MalformedLineError(BadLineError):
    """Why a line is not JSON."""


def _document_of(line: bytes, choice: Choice) -> tuple[str, int]:
    try:
        return choice.pick(orjson.loads(line))
    except orjson.JSONDecodeError:
        # NaN, half a character: under a key that nobody reads they are none of our business.
        return _whole(choice.pick(_lenient(line)))


def _lenient(line: bytes) -> object:
    """JSON as the standard library reads it, with NaN, Infinity and lone surrogates."""
    try:
        return json.loads(_decode(line), parse_int=float)
    except BadLineError as error:
        raise _MalformedLineError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise _MalformedLineError(f"malformed JSON: {error}") from None


def _whole(document: tuple[str, int]) -> tuple[str, int]:
    """Half a character, which the standard library's JSON lets through, is no text."""
    try:
        document[0].encode()
    except UnicodeEncodeError as error:
        raise BadLineError(f"a lone surrogate at character {error.start}") from None
    return document


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadLineError(f"bad UTF-8: byte 0x{data[error.start]:02x} at {error.start}") from None
