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
from typing import Any

import numpy as np
import numpy.typing as npt

_BEYOND = 0x32400  # no letters yet from here on
_CODES = 0x110000


def is_stable(text: str, kinds: bool) -> bool:
    """Whether all of ``text``'s characters are stable; a lone surrogate is not. ``kinds``: of letters matter."""
    if text.isascii():
        return True
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return not unstable(kinds).take(codes).any()


def tells_kinds(tokenizer_json: bytes) -> bool:
    """Whether the file tells kinds of letters apart: a pattern with ``\\p{Lu}`` or the like, lower-casing."""
    words = rb'\\[pP]\{\^?(L[^}]|Upper|Lower|Title)|"Lowercase"|"BertNormalizer"'
    return re.search(words, tokenizer_json) is not None


@cache
def unstable(kinds: bool) -> npt.NDArray[np.bool_]:
    """Which code points are not, ``[U+110000]``."""
    characters = list(map(chr, range(_BEYOND)))
    now = np.array(list(map(unicodedata.category, characters)))
    then = np.array(list(map(unicodedata.ucd_3_2_0.category, characters)))
    # Cn, not assigned yet: a later version may make anything of it.
    classes = (now, then) if kinds else (now.astype("<U1"), then.astype("<U1"))
    agreed = (now != "Cn") & ((classes[0] == classes[1]) | ~(_cuts(now) | _cuts(then)))
    agreed[0xD800:0xE000] = False
    return np.concatenate([~agreed, np.ones(_CODES - _BEYOND, np.bool_)])


def _cuts(categories: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which are letters, numbers, marks or spaces."""
    return np.isin(categories.astype("<U1"), list("LNMZ"))
