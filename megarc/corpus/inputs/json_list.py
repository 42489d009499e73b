"""The elements of a JSON list, one after another, without holding the list in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from megarc.errors import UserError

_CHUNK_BYTES = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")


def json_list_elements(stream: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """``(number of the element, element)`` of the list that ``stream`` holds.

    Raises:
        UserError: where it is no list of JSON: what follows such a place cannot be trusted.
    """
    source = _Buffer(stream, name)
    source.expect("[")
    number = 0
    while source.peek() != "]":
        if number:
            source.expect(",")
        yield number, source.value(number)
        number += 1
    source.expect("]")
    if source.peek():
        raise UserError(f"{name} is not valid JSON: something follows the list")


class _Buffer:
    """Text read so far and not used yet."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.stream, self.name = stream, name
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.scanner = json.JSONDecoder(parse_int=float)  # an integer of 5,000 digits is an error of its own
        self.text, self.at = "", 0
        self.ended = False

    def peek(self) -> str:
        """The next character that is no space, or nothing at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._read(_CHUNK_BYTES)

    def expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            seen = f"'{found}'" if found else "the file's end"
            raise UserError(f"{self.name} is not a valid JSON list: '{character}' expected, {seen} found")
        self.at += 1

    def value(self, number: int) -> Any:
        """The next element; reads on, twice as far each time, while it is incomplete."""
        step = _CHUNK_BYTES
        self.peek()
        while True:
            try:
                value, end = self.scanner.raw_decode(self.text, self.at)
            except (json.JSONDecodeError, RecursionError) as error:
                if self.ended:
                    raise UserError(f"{self.name}: element {number} is not valid JSON ({error})") from None
            else:
                # A number at the end of the buffer may go on.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            self._read(step)
            step *= 2

    def _read(self, size: int) -> None:
        data = self.stream.read(size)
        self.ended = not data
        try:
            more = self.decoder.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.name} is not UTF-8: byte 0x{error.object[error.start]:02x}") from None
        self.text, self.at = self.text[self.at :] + more, 0
