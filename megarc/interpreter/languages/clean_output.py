"""Bytes that a program wrote, as text that can be shown on a terminal and packed."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(written: bytes) -> str:
    """``written`` as text: bytes that are no UTF-8 become U+FFFD; control characters are spelt out.

    So a terminal code in it moves no cursor and a direction mark turns no line around: ``\\x1b[2J`` is shown
    as these letters. Line ends stay, a carriage return before one goes.
    """
    text = written.decode("utf-8", errors="replace").replace("\r\n", "\n")
    return _CONTROL.sub(lambda found: _spelt(found[0]), text)


def _spelt(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
