"""Reads the documents of a span: texts and where each begins, and the bad lines among them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import orjson

from megarc.corpus.inputs.find import Input
from megarc.corpus.inputs.json_list import json_list_elements
from megarc.corpus.inputs.lines import lines_of
from megarc.corpus.inputs.span import Block, Span
from megarc.corpus.inputs.streams import open_stream

_BOM = b"\xef\xbb\xbf"


def read_span(file: Input, span: Span, json_key: str) -> Iterator[Block]:
    """The documents that begin in ``span``, in order, in blocks of about a million characters.

    Raises:
        UserError: for a file that cannot be read to its end.
    """
    if file.format == "jsonl":
        return _read_lines(file, span, json_key)
    if file.format == "json":
        return _read_json(file, span, json_key)
    if file.format == "parquet":
        from megarc.corpus.inputs.parquet import read_rows

        return read_rows(file, span, json_key)
    return _read_text(file)


def _read_lines(file: Input, span: Span, json_key: str) -> Iterator[Block]:
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
                block.take(_text_of(line, json_key), offset)
            except _BadLineError as error:
                cut = not ended and isinstance(error, _MalformedLineError)
                block.reject(number - 1, offset, f"truncated last line ({error})" if cut else str(error))
            if block.full():
                yield block
                block = Block()
    yield block


def _read_json(file: Input, span: Span, json_key: str) -> Iterator[Block]:
    """A list of objects or strings; a file that holds lines of JSON in spite of its name is read as such."""
    with open_stream(file) as stream:
        head = stream.read(64).removeprefix(_BOM).lstrip()[:1]
    if head != b"[":
        yield from _read_lines(file, span, json_key)
        return
    block = Block()
    with open_stream(file) as stream:
        for number, (offset, element) in enumerate(json_list_elements(stream, file.name)):
            try:
                block.take(_whole(_text_in(element, json_key)), offset)
            except _BadLineError as error:
                block.reject(number, offset, str(error))
            if block.full():
                yield block
                block = Block()
    yield block


def _read_text(file: Input) -> Iterator[Block]:
    with open_stream(file) as stream:
        data = stream.read().removeprefix(_BOM)
    block = Block()
    try:
        if b"\0" in data:
            raise _BadLineError(f"not text: a NUL at byte {data.index(0)} (a binary or UTF-16 file?)")
        block.take(_decode(data), 0)
    except _BadLineError as error:
        block.reject(0, 0, str(error))
    yield block


class _BadLineError(Exception):
    """Why a line holds no document."""


class _MalformedLineError(_BadLineError):
    """Why a line is no JSON."""


def _text_of(line: bytes, json_key: str) -> str:
    try:
        return _text_in(orjson.loads(line), json_key)
    except orjson.JSONDecodeError:
        # NaN, half a character: under a key that nobody reads they are none of our business.
        return _whole(_text_in(_lenient(line), json_key))


def _lenient(line: bytes) -> object:
    """JSON as the standard library reads it, with NaN, Infinity and lone surrogates."""
    try:
        return json.loads(_decode(line), parse_int=float)
    except _BadLineError as error:
        raise _MalformedLineError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise _MalformedLineError(f"malformed JSON: {error}") from None


def _text_in(element: object, json_key: str) -> str:
    if isinstance(element, dict):
        if json_key not in element:
            raise _BadLineError(f"no key '{json_key}'")
        element = element[json_key]
        if isinstance(element, str):
            return element
        kind = "null" if element is None else f"a {type(element).__name__}"
        raise _BadLineError(f"the key '{json_key}' holds {kind}, not a string")
    if isinstance(element, str):
        return element
    raise _BadLineError(f"a {type(element).__name__}, not an object with the key '{json_key}'")


def _whole(text: str) -> str:
    """Half a character, which the standard library's JSON lets through, is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _BadLineError(f"a lone surrogate at character {error.start}") from None
    return text


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _BadLineError(f"bad UTF-8: byte 0x{data[error.start]:02x} at {error.start}") from None
