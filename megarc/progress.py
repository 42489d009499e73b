"""Progress for people: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_SECONDS_BETWEEN_LINES = 10.0


class Bar(Protocol):
    """What a long job tells."""

    def advance(self, amount: float, **facts: object) -> None:
        """``amount`` more is done; ``facts`` are shown behind the bar (``loss=3.2``)."""


@contextmanager
def progress(what: str, total: float, *, unit: str = "", quiet: bool = False) -> Iterator[Bar]:
    """A bar for ``total`` units of ``what``, on standard error.

    Args:
        unit: ``"B"`` for bytes, ``"tokens"``, ...; shown with the rate.
        quiet: shows nothing (ranks other than 0).
    """
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        with _live(what, total, unit) as bar:
            yield bar
    else:
        lines = _Lines(what, total, unit)
        yield lines
        lines.close()


class _Silent:
    def advance(self, amount: float, **facts: object) -> None:
        return None


class _Lines:
    """A line every ten seconds, and one at the end."""

    def __init__(self, what: str, total: float, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0.0
        self.start = self.last = time.monotonic()
        self.facts: dict[str, object] = {}

    def advance(self, amount: float, **facts: object) -> None:
        self.done += amount
        self.facts.update(facts)
        if time.monotonic() - self.last >= _SECONDS_BETWEEN_LINES:
            self._say()

    def close(self) -> None:
        self._say()

    def _say(self) -> None:
        self.last = time.monotonic()
        elapsed = self.last - self.start
        rate = self.done / elapsed if elapsed > 0 else 0.0
        share = 100 * self.done / self.total if self.total else 100.0
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        words = [f"{self.what}: {share:.0f} %", f"{human(rate)}{self.unit and ' ' + self.unit}/s"]
        words.append(f"{clock(left)} left" if self.done < self.total else f"took {clock(elapsed)}")
        words += [f"{key} {value}" for key, value in self.facts.items()]
        print(", ".join(words), file=sys.stderr, flush=True)


@contextmanager
def _live(what: str, total: float, unit: str) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as live:
        task = live.add_task(what, total=total, rate="", facts="")
        start = time.monotonic()

        class Live:
            def advance(self, amount: float, **facts: object) -> None:
                live.advance(task, amount)
                done = live.tasks[0].completed
                rate = done / max(time.monotonic() - start, 1e-9)
                shown = f"{human(rate)}{unit and ' ' + unit}/s"
                if facts:
                    live.update(task, facts=", ".join(f"{key} {value}" for key, value in facts.items()))
                live.update(task, rate=shown)

        yield Live()


def human(number: float) -> str:
    """1234567 as ``1.23M``."""
    for suffix in ("", "k", "M", "G", "T"):
        if abs(number) < 1000:
            return f"{number:.3g}{suffix}"
        number /= 1000
    return f"{number:.3g}P"


def clock(seconds: float) -> str:
    """3723 as ``1:02:03``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
