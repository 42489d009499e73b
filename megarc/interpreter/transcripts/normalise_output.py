"""Outputs as they would be anywhere, at any time: what can't be reproduced is given a name, or shows itself.

Some things are certain to be chance, such as the address in ``<object at 0x7f..>``: they are always replaced. Others
(a time, a path, a number that may be an id) are replaced only where two runs differ, since they may be meant.
"""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(?<=\bat )0x[0-9a-fA-F]{6,16}\b")
_CHANCE = (
    (re.compile(r"\b0x[0-9a-fA-F]{6,16}\b"), "0x"),
    (re.compile(r"(?<=id=)'?\d{12,16}'?"), "id"),
    (re.compile(r"/tmp/[\w.-]*\w"), "/tmp/"),
    (re.compile(r"\bpsm_[0-9a-f]{8}\b"), "psm_"),
    (re.compile(r"\b(?:19|20)\d\d-[01]\d-[0-3]\d(?:[T ][0-2]\d:[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?)?"), "date"),
    (re.compile(r"\b[0-2]?\d:[0-5]\d:[0-5]\d(?:[.,]\d+)?\b"), "time"),
    (re.compile(r"\b1[6-9]\d{8}(?:\.\d+)?\b"), "seconds"),
)


def settled(output: str) -> str:
    """``output`` with its addresses numbered in order of appearance: ``<object at 0x1>``, ``<object at 0x2>``.

    The same address keeps the same number, so that what is one object stays one.
    """
    seen: dict[str, int] = {}
    return _ADDRESS.sub(lambda found: f"0x{seen.setdefault(found[0], len(seen) + 1):x}", output)


def normalised(first: str, second: str) -> str | None:
    """What two runs of one piece agree on; None where they differ in more than names for chance."""
    first, second = settled(first), settled(second)
    if first == second:
        return first
    named = _named(first)
    return named if named == _named(second) else None


def shortened(output: str, limit: int) -> str:
    """``output``, or its first ``limit`` characters and how many follow."""
    return output if len(output) <= limit else f"{output[:limit]}\n[{len(output) - limit} characters more]\n"


def _named(output: str) -> str:
    for pattern, word in _CHANCE:
        seen: dict[str, int] = {}
        output = pattern.sub(
            lambda found, seen=seen, word=word: f"{word}{seen.setdefault(found[0], len(seen) + 1)}",  # type: ignore[misc]
            output,
        )
    return output
