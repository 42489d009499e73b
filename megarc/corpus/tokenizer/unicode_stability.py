"""Characters on whose class all versions of Unicode agree.

Tokenizers cut text by Unicode's classes (letter, number, mark, space). Two
engines whose tables are of different years cut differently around a character
that one of them does not know yet: gigatoken 0.10.0 and tokenizers 0.23.3 differ
on some 400. So a character counts as stable where Unicode 3.2 and this Python's
table say the same, or where it is neither of those classes (an emoji). For
patterns that tell kinds of letters apart (upper, lower, ...) the kind must be the
same too; for others that would send every text with an º the slow way.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

_BEYOND = 0x32400  # no letters yet from here on
_CODES = 0x110000
_PAGE = 256  # code points whose classes are looked up together
_STABLE, _UNSTABLE = 1, 2
_CUTTING = "LNMZ"  # letters, numbers, marks and spaces
_STRETCH = 1 << 13  # characters that are looked at together
_NOWHERE: npt.NDArray[np.int64] = np.empty(0, np.int64)


def is_stable(text: str, kinds: bool) -> bool:
    """Whether all of ``text``'s characters are stable; a lone surrogate is not. ``kinds``: of letters matter."""
    return not len(unstable_places(text, kinds))


def unstable_places(text: str, kinds: bool) -> npt.NDArray[np.int64]:
    """Which characters of ``text`` are not stable, by their numbers."""
    if text.isascii():
        return _NOWHERE
    found = []
    for first in range(0, len(text), _STRETCH):  # most stretches of a long text are ASCII
        stretch = text[first : first + _STRETCH]
        if not stretch.isascii() and len(places := _unstable_in(stretch, kinds)):
            found.append(places + first)
    return np.concatenate(found) if found else _NOWHERE


def _unstable_in(text: str, kinds: bool) -> npt.NDArray[np.int64]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    table = _table(kinds)
    found = table.take(codes)
    if not found.all():  # characters of pages that come for the first time
        for page in np.flatnonzero(np.bincount(codes[found == 0] // _PAGE)).tolist():
            _fill(table, page, kinds)
        found = table.take(codes)
    return np.flatnonzero(found == _UNSTABLE)


def tells_kinds(tokenizer_json: bytes) -> bool:
    """Whether the file tells kinds of letters apart: a pattern with ``\\p{Lu}`` or the like, lower-casing."""
    words = rb'\\[pP]\{\^?(L[^}]|Upper|Lower|Title)|"Lowercase"|"BertNormalizer"'
    return re.search(words, tokenizer_json) is not None


def unstable(kinds: bool) -> npt.NDArray[np.bool_]:
    """Which code points are not stable, ``[U+110000]``."""
    table: npt.NDArray[np.uint8] = np.zeros(_CODES, np.uint8)
    for page in range(_CODES // _PAGE):
        _fill(table, page, kinds)
    return table == _UNSTABLE


@cache
def _table(kinds: bool) -> npt.NDArray[np.uint8]:
    """Of each code point ``_STABLE``, ``_UNSTABLE``, or 0: not looked up yet."""
    return np.zeros(_CODES, np.uint8)


def _fill(table: npt.NDArray[np.uint8], page: int, kinds: bool) -> None:
    first = page * _PAGE
    if first >= _BEYOND:
        table[first : first + _PAGE] = _UNSTABLE
        return
    characters = list(map(chr, range(first, first + _PAGE)))
    now, then = map(unicodedata.category, characters), map(unicodedata.ucd_3_2_0.category, characters)
    table[first : first + _PAGE] = [_judged(*pair, kinds) for pair in zip(now, then, strict=True)]


@cache
def _judged(now: str, then: str, kinds: bool) -> int:
    """Of a character with these categories."""
    if now in ("Cn", "Cs"):  # not assigned yet: a later version may make anything of it; half a character
        return _UNSTABLE
    same = now == then if kinds else now[0] == then[0]
    return _STABLE if same or not (now[0] in _CUTTING or then[0] in _CUTTING) else _UNSTABLE
