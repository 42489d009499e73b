"""SMT-LIB commands in a text: where each ends."""

from __future__ import annotations

import re

_TOKEN = re.compile(r';[^\n]*|"(?:[^"]|"")*"|\|[^|]*\||[()]')


def commands(source: str) -> tuple[list[str], str]:
    """The whole commands of ``source``, and what is left at its end: space and comments, or half a command."""
    found: list[str] = []
    depth = begun = 0
    for token in _TOKEN.finditer(source):
        if token[0] == "(":
            depth += 1
        elif token[0] == ")":
            depth -= 1
            if depth < 0:
                return found, source[begun:]
            if depth == 0:
                found.append(source[begun : token.end()].strip())
                begun = token.end()
    return found, source[begun:]


def complete(source: str) -> bool:
    """Whether nothing of ``source`` would swallow what is sent after it."""
    rest = commands(source)[1]
    return not re.sub(r";[^\n]*", "", rest).strip()
