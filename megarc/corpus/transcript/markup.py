"""Marked text: what a transcript looks like in a file.

    before <in:python>print(6 * 7)</in><out>42
    </out> after

A mark that belongs to the text itself is written with a backslash behind its ``<``, one more than it had.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "code", "output"]

_NAME = "[a-z][a-z0-9_]*"
_MARK = re.compile(rf"<(?:in:({_NAME})|(/in|out|/out))>")
_ESCAPABLE = re.compile(rf"<(\\*)(in:{_NAME}|/in|out|/out)>")
_ESCAPED = re.compile(rf"<\\(\\*(?:in:{_NAME}|/in|out|/out))>")


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a transcript; ``language`` of code only."""

    kind: Kind
    text: str
    language: str = ""


class Unbalanced(ValueError):
    """Marks that do not fit together, and where."""


def write_marked(segments: Iterable[Segment], *, strict: bool = True) -> str:
    """Segments as one marked text; ``parse_marked`` gives them back.

    Args:
        strict: False: writes whatever a model made, for people to read; what is no name becomes ``unknown``.

    Raises:
        Unbalanced: for an output that follows no code, a language that is no name.
    """
    parts: list[str] = []
    before = "text"
    for segment in segments:
        text = _ESCAPABLE.sub(r"<\\\1\2>", segment.text)
        if segment.kind == "code":
            language = segment.language
            if not re.fullmatch(_NAME, language):
                if strict:
                    raise Unbalanced(f"'{language}' cannot be the name of a language")
                language = "unknown"
            parts.append(f"<in:{language}>{text}</in>")
        elif segment.kind == "output":
            if strict and before != "code":
                raise Unbalanced("an output follows no code")
            parts.append(f"<out>{text}</out>")
        else:
            parts.append(text)
        before = segment.kind
    return "".join(parts)


def parse_marked(marked: str) -> list[Segment]:
    """The segments of a marked text; empty text between them is left out.

    Raises:
        Unbalanced: where marks do not fit together.
    """
    segments: list[Segment] = []
    begun, language, opened = 0, "", ""
    for mark in _MARK.finditer(marked):
        inside = marked[begun : mark.start()]
        name = mark[2] or "in"
        if opened:
            if name != f"/{opened}":
                raise Unbalanced(f"{mark[0]} at character {mark.start()}, within <{opened}>")
            segments.append(Segment("code" if opened == "in" else "output", _plain(inside), language))
            opened = language = ""
        elif name.startswith("/"):
            raise Unbalanced(f"{mark[0]} at character {mark.start()} closes nothing")
        else:
            if inside:
                segments.append(Segment("text", _plain(inside)))
            if name == "out" and not (segments and segments[-1].kind == "code"):
                raise Unbalanced(f"<out> at character {mark.start()} follows no code")
            opened, language = name, mark[1] or ""
        begun = mark.end()
    if opened:
        raise Unbalanced(f"<{opened}> is not closed at the end of the text")
    if begun < len(marked):
        segments.append(Segment("text", _plain(marked[begun:])))
    return segments


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"<\1>", text)
