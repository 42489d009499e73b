"""Coq's sentences: where each ends. Coqtop answers sentence by sentence, and waits for ever for half a one."""

from __future__ import annotations

_BULLETS = "-+*"


def sentences(source: str) -> tuple[list[str], str]:
    """The whole sentences of ``source`` without the comments between them, and what is left at its end.

    A sentence ends at a full stop before white space or the end, outside of comments, which nest, and strings.
    A bullet, and a brace alone, is a sentence by itself.
    """
    found: list[str] = []
    at = begun = 0
    while at < len(source):
        if begun == at and source[at].isspace():
            begun = at = at + 1
        elif source.startswith("(*", at):
            end = _after_comment(source, at)
            if end is None:
                return found, source[begun:]
            begun, at = (end, end) if begun == at else (begun, end)
        elif source[at] == '"':
            end = source.find('"', at + 1)
            if end < 0:
                return found, source[begun:]
            at = end + 1
        elif begun == at and source[at] in "{}":
            found.append(source[at])
            begun = at = at + 1
        elif begun == at and source[at] in _BULLETS:
            end = at
            while end < len(source) and source[end] == source[at]:
                end += 1
            found.append(source[at:end])
            begun = at = end
        elif _stops(source, at):
            found.append(source[begun : at + 1].strip())
            begun = at = at + 1
        else:
            at += 1
    return found, source[begun:]


def _stops(source: str, at: int) -> bool:
    if source[at] != ".":
        return False
    after = source[at + 1 : at + 2]
    alone = source[at - 1 : at] != "." or source[at - 2 : at + 1] == "..."  # `..` belongs to notations
    return alone and (not after or after.isspace())


def _after_comment(source: str, at: int) -> int | None:
    depth, place = 0, at
    while place < len(source):
        if source.startswith("(*", place):
            depth, place = depth + 1, place + 2
        elif source.startswith("*)", place):
            depth, place = depth - 1, place + 2
            if not depth:
                return place
        elif source[place] == '"':
            end = source.find('"', place + 1)
            if end < 0:
                return None
            place = end + 1
        else:
            place += 1
    return None
