"""Bad lines: where they lie in their files, how many may be, and the list of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from megarc.atomic_write import written_atomically
from megarc.corpus.packing.shard import SpanFacts
from megarc.errors import UserError

_EARLY = 1000  # so many bad lines, at ten times the rate allowed, end a job at once


def settle_rejects(spans: Iterable[SpanFacts], names: Sequence[str], prefix: Path, most: float) -> int:
    """Writes P.rejects.jsonl, where there are any, and says how many.

    Args:
        most: the share of all lines that may be bad.

    Raises:
        UserError: where more are; the list is written all the same.
    """
    path = Path(f"{prefix}.rejects.jsonl")
    ordered = sorted(spans, key=lambda span: (span.input, span.start))
    lines, rejects = sum(span.lines for span in ordered), sum(span.rejects for span in ordered)
    if not rejects:
        path.unlink(missing_ok=True)
        return 0
    first = ""
    with written_atomically(path) as file:
        for entry in _located(ordered, names):
            first = first or f"{entry['file']}, line {entry['line']}: {entry['reason']}"
            file.write(orjson.dumps(entry) + b"\n")
    if rejects > most * lines:
        raise too_many(rejects, lines, most, f"they are listed in {path}; the first: {first}")
    return rejects


def check_early(rejects: int, lines: int, most: float, hint: str = "is --json-keys right?") -> None:
    """Ends a job that goes badly wrong (a wrong key, another kind of file) long before its end."""
    if rejects >= _EARLY and rejects > 10 * most * lines:
        raise too_many(rejects, lines, most, f"stopped early; {hint}")


def too_many(rejects: int, lines: int, most: float, more: str) -> UserError:
    share = f"{100 * rejects / lines:.3g} %, more than --max-bad {most:g}"
    return UserError(f"{rejects} of {lines} lines or files are bad ({share}); {more}")


def _located(spans: Sequence[SpanFacts], names: Sequence[str]) -> Iterable[dict[str, str | int]]:
    """Entries with line numbers that count from the file's first line, 1."""
    current, before = -1, 0
    for span in spans:
        if span.input != current:
            current, before = span.input, 0
        for line, byte, reason in span.shown:
            yield {"file": names[span.input], "line": before + line + 1, "byte": byte, "reason": reason}
        if span.rejects > len(span.shown):
            more = span.rejects - len(span.shown)
            yield {"file": names[span.input], "line": 0, "byte": span.start, "reason": f"and {more} more"}
        before += span.lines
