"""Characters on whose class all versions of Unicode agree.

Tokenizers cut text by Unicode's classes (letter, number, mark, space). Two
engines whose tables are of different years cut differently around a character
that one of them does not know yet: gigatoken 0.10.0 and tokenizers 0.23.3 differ
on some 400. So a character counts as stable where Unicode 3.2 and this Python's
table say the same, or where it is neither of those classes (an emoji).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_BEYOND = 0x32400  # no letters yet from here on
_CLASSES = "LNMZ"


def is_stable(text: str) -> bool:
    """Whether all of ``text``'s characters are stable."""
    if text.isascii():
        return True
    unstable, astral, unstable_astral = _tables()
    if unstable.search(text):
        return False
    found = set(astral.findall(text))
    return not found or (unstable_astral.isdisjoint(found) and max(found) < chr(_BEYOND))


def unstable_characters() -> list[int]:
    """The code points below U+32400 that are not."""
    return [code for code in range(0x80, _BEYOND) if not 0xD800 <= code < 0xE000 and not _agreed(chr(code))]


def _agreed(character: str) -> bool:
    now, then = unicodedata.category(character), unicodedata.ucd_3_2_0.category(character)
    if now == "Cn":
        return False  # of a later version, which may make it anything
    return now == then or not (now[0] in _CLASSES or then[0] in _CLASSES)


@cache
def _tables() -> tuple[re.Pattern[str], re.Pattern[str], frozenset[str]]:
    """A pattern of the unstable below U+10000, one of all from there on, and the unstable ones of these.

    One pattern for both would try hundreds of ranges on every character.
    """
    codes = unstable_characters()
    low = "".join(re.escape(chr(code)) for code in codes if code < 0x10000)
    high = frozenset(chr(code) for code in codes if code >= 0x10000)
    return re.compile(f"[{low}]"), re.compile("[\U00010000-\U0010ffff]"), high
