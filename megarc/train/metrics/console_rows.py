"""Metrics on the console as a table: a row a line of metrics, its head again now and then."""

from __future__ import annotations

import sys
from collections.abc import Mapping

_ROWS = 20  # below one head
_LEAST = 10  # characters of a column


class ConsoleRows:
    """On standard error, where messages go; columns keep their width until a value needs more."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._widths: list[int] = []
        self._since = 0

    def show(self, facts: Mapping[str, str]) -> None:
        """One row."""
        if list(facts) != self._names or self._since >= _ROWS:
            self._names, self._since = list(facts), 0
            self._widths = [max(_LEAST, len(name), len(value)) for name, value in facts.items()]
            self._print(self._names)
        self._since += 1
        self._print(list(facts.values()))

    def _print(self, words: list[str]) -> None:
        line = "  ".join(word.rjust(width) for word, width in zip(words, self._widths, strict=True))
        print(line, file=sys.stderr, flush=True)
