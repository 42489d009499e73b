"""metrics.csv: a row a line of metrics, a column a name. New names make the file anew, with more columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from megarc.atomic_write import written_atomically
from megarc.train.metrics.trackers.tracker import Line, Tracked


class CsvFile:
    """Beside metrics.jsonl; made anew from its lines at each start."""

    def __init__(self) -> None:
        self._path = Path()
        self._names: list[str] = []
        self._rows: list[Line] = []

    def open(self, run: Tracked) -> int:
        self._path = run.folder.parent / "metrics.csv"
        self._path.unlink(missing_ok=True)
        return -1

    def log(self, lines: Sequence[Line]) -> None:
        self._rows += lines
        more = dict.fromkeys(name for line in lines for name in line if name not in self._names)
        if not more:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text(lines))
            return
        self._names += more
        with written_atomically(self._path) as out:
            out.write((",".join(self._names) + "\n" + self._text(self._rows)).encode())

    def close(self) -> None:
        pass

    def _text(self, lines: Sequence[Line]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._names, restval="", lineterminator="\n")
        writer.writerows(
            {name: "" if value is None else value for name, value in line.items()} for line in lines
        )
        return text.getvalue()
