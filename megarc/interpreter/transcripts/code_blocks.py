"""Finds code in a document: sessions at a prompt, fenced blocks, directives, notebook cells, whole files."""

from __future__ import annotations

import re
from collections.abc import Collection
from textwrap import dedent

import orjson

from megarc.corpus import Segment
from megarc.interpreter.languages.coq_sentences import sentences
from megarc.interpreter.languages.smt_syntax import commands

_ALIASES = {
    "python": "python", "python3": "python", "py": "python", "pycon": "python", "ipython": "python",
    "coq": "coq", "v": "coq", "smt": "smt", "smt2": "smt", "smtlib": "smt", "smt-lib": "smt", "z3": "smt",
    "lean": "lean", "lean4": "lean",
}  # fmt: skip
_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*\{?\.?([\w-]*)[^`]*$")
_LONGEST_MARK = 1000  # characters of a line that opens a block: patterns would search a longer one for hours
_DIRECTIVE = re.compile(r"(\s*)\.\. (?:code-block|code|sourcecode|testcode|highlight):: *(\w*)\s*$")
_PROMPTS = (
    ("python", re.compile(r"(\s*)>>> ?(.*)$"), re.compile(r"\s*\.\.\.(?: (.*)|\s*)$")),
    ("python", re.compile(r"(\s*)In \[\d*\]: ?(.*)$"), re.compile(r"\s*\.\.\.: ?(.*)$")),
    ("coq", re.compile(r"(\s*)\w+ < (.*)$"), None),
)
_FILES = {".v": "coq", ".lean": "lean", ".smt2": "smt"}


def find_code(document: str, name: str, languages: Collection[str]) -> list[Segment]:
    """The document as segments: text, and pieces of code in ``languages`` without the outputs that it shows.

    Outside of code the text is the document's own, to the character; prompts, fences, directives and the
    outputs behind prompts are left out with the code that they belong to.

    Args:
        name: its ending tells files that are code as a whole, and notebooks.
    """
    suffix = "." + name.rsplit(".", 1)[-1] if "." in name else ""
    if suffix in _FILES:
        language = _FILES[suffix]
        return _file(document, language) if language in languages else [Segment("text", document)]
    if suffix == ".ipynb" and (cells := _cells(document)) is not None:
        return [segment for cell in cells for segment in _lines(cell, languages)]
    return _lines(document, languages)


def _lines(document: str, languages: Collection[str]) -> list[Segment]:
    lines = document.splitlines(keepends=True)
    fences = _Fences(lines)
    segments: list[Segment] = []
    text: list[str] = []
    at = 0
    while at < len(lines):
        found = _session(lines, at)
        if found is None and len(lines[at]) <= _LONGEST_MARK:
            found = fences.block(at) or _directed(lines, at)
        if found is None or found[0] not in languages:
            after = at + 1 if found is None else found[2]
            text += lines[at:after]
            at = after
            continue
        language, pieces, at = found
        if text:
            segments.append(Segment("text", "".join(text)))
            text = []
        segments += [Segment("code", piece, language) for piece in pieces]
    if text:
        segments.append(Segment("text", "".join(text)))
    return segments


Found = tuple[str, list[str], int]
"""Language, pieces, and the line behind them."""


def _session(lines: list[str], at: int) -> Found | None:
    """One statement at a prompt, with the output that the document shows for it."""
    for language, prompt, more in _PROMPTS:
        first = prompt.match(lines[at])
        if first is None:
            continue
        source = [first[2].rstrip("\n")]
        at += 1
        while at < len(lines) and more is not None and (following := more.match(lines[at])):
            source.append((following[1] or "").rstrip("\n"))
            at += 1
        while at < len(lines) and lines[at].strip() and not _begins(lines[at], first[1]):
            at += 1
        return language, ["\n".join(source).rstrip() + "\n"], at
    return None


def _begins(line: str, indent: str) -> bool:
    """Whether a line behind a statement is no output of it: another prompt, or less far in (a docstring's end)."""
    if any(prompt.match(line) for _, prompt, _ in _PROMPTS[:2]):
        return True
    return not line.startswith(indent) or line.strip() in ('"""', "'''") or line.strip().startswith("```")


class _Fences:
    """A document's fenced blocks, in the order of its lines."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._open: dict[str, int] = {}  # by character: a fence so long is not closed before the end

    def block(self, at: int) -> Found | None:
        """A fenced block whose language is known; one with prompts in it is a session instead."""
        fence = _FENCE.match(self._lines[at].rstrip("\n"))
        language = _ALIASES.get(fence[3].lower()) if fence else None
        if fence is None or language is None:
            return None
        end = self._end(at, fence[2])
        if end is None:
            return None
        return language, _pieces("".join(self._lines[at + 1 : end]), language), end + 1

    def _end(self, at: int, fence: str) -> int | None:
        """The line that closes ``fence``. What no line behind an earlier one closes, none behind this one does."""
        if len(fence) >= self._open.get(fence[0], len(fence) + 1):
            return None
        for end in range(at + 1, len(self._lines)):
            line = self._lines[end].strip()
            if line.startswith(fence) and not line.strip(fence[0]):
                return end
        self._open[fence[0]] = len(fence)
        return None


def _directed(lines: list[str], at: int) -> Found | None:
    """A code-block of reStructuredText."""
    directive = _DIRECTIVE.match(lines[at].rstrip("\n"))
    language = _ALIASES.get((directive[2] or "python").lower()) if directive else None
    if directive is None or language is None or "highlight" in lines[at]:
        return None
    end = at + 1
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith(directive[1] + " ")):
        end += 1
    while end > at + 1 and not lines[end - 1].strip():
        end -= 1
    block = [line for line in lines[at + 1 : end] if not re.match(r"\s+:[\w-]+:", line)]
    pieces = _pieces("".join(block), language)
    return (language, pieces, end) if pieces else None


def _pieces(block: str, language: str) -> list[str]:
    block = dedent(block).strip("\n")
    if not block.strip():
        return []
    if language == "python" and re.search(r"^[ \t]*(>>>|In \[\d*\]:)", block, re.MULTILINE):
        return [one.text for one in _lines(block, ("python",)) if one.kind == "code"]
    return [block + "\n"]


def _file(document: str, language: str) -> list[Segment]:
    """A file of code, statement by statement; what is left over at its end is text."""
    if language == "lean":  # its commands end where the next begins: at a line that is not indented
        parts, rest = re.split(r"\n(?=\S)", document), ""
    else:
        parts, rest = sentences(document) if language == "coq" else commands(document)
    segments = [Segment("code", part.strip("\n") + "\n", language) for part in parts if part.strip()]
    return [*segments, *([Segment("text", rest)] if rest.strip() else [])]


def _cells(document: str) -> list[str] | None:
    """A notebook's cells as text, code between fences; None where it is no notebook."""
    try:
        notebook = orjson.loads(document)
        cells = notebook["cells"]
        found = []
        for cell in cells:
            source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
            # A magic line is no Python, and its cell not either.
            code = cell["cell_type"] == "code" and not re.search(r"^\s*[%!]", source, re.MULTILINE)
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", source)), default=0))
            found.append(f"{fence}python\n{source}\n{fence}\n" if code else f"{source}\n\n")
        return found
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
