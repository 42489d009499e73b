"""Progress for people: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_OF_WINDOW = 60.0
_LEAST_ENTRIES = 8  # of the window, however long they took


class Estimate:
    """How fast a job goes and how long it will take, from the last minute alone.

    Work that was done before (``done``) counts in the share, never in the rate. What cannot be known is None.

    Args:
        total: units of work in all; None where that is unknown.
        done: units that were done when the clock starts.
        clock: seconds.
    """

    def __init__(
        self, total: float | None, done: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.done = total, done
        self._clock = clock
        self.start = clock()
        self._entries = deque([(self.start, done)])

    def advance(self, amount: float) -> None:
        """``amount`` more is done."""
        if not amount:
            return
        now = self._clock()
        self.done += amount
        self._entries.append((now, self.done))
        while len(self._entries) > _LEAST_ENTRIES and self._entries[1][0] <= now - _SECONDS_OF_WINDOW:
            self._entries.popleft()

    @property
    def elapsed(self) -> float:
        """Seconds since the clock started."""
        return self._clock() - self.start

    @property
    def rate(self) -> float | None:
        """Units a second; None before anything was done."""
        began, before = self._entries[0]
        seconds = self._clock() - began
        return (self.done - before) / seconds if self.done > before and seconds > 0 else None

    @property
    def share(self) -> float | None:
        """What is done of the whole, 0 to 1."""
        return None if not self.total else min(self.done / self.total, 1.0)

    @property
    def left(self) -> float | None:
        """Seconds to the end."""
        rate = self.rate
        return None if self.total is None or rate is None else max(self.total - self.done, 0.0) / rate


class Bar(Protocol):
    """What a long job tells."""

    estimate: Estimate

    def advance(self, amount: float, **facts: object) -> None:
        """``amount`` more is done; ``facts`` are shown behind the bar (``loss=3.2``)."""


@contextmanager
def progress(
    what: str, total: float | None, *, done: float = 0.0, unit: str = "", quiet: bool = False
) -> Iterator[Bar]:
    """A bar for ``total`` units of ``what``, on standard error.

    Args:
        total: None where it is unknown.
        done: units that an earlier job did: they count in the share, not in the rate.
        unit: ``"B"`` for bytes, ``"tokens"``, ...; shown with the rate.
        quiet: shows nothing (ranks other than 0).
    """
    estimate = Estimate(total, done)
    if quiet:
        yield _Silent(estimate)
    elif sys.stderr.isatty():
        with _live(what, estimate, unit) as bar:
            yield bar
    else:
        lines = _Lines(what, estimate, unit)
        yield lines
        lines.close()


class _Silent:
    def __init__(self, estimate: Estimate) -> None:
        self.estimate = estimate

    def advance(self, amount: float, **facts: object) -> None:
        self.estimate.advance(amount)


class _Lines:
    """A line every ten seconds, and one at the end."""

    def __init__(self, what: str, estimate: Estimate, unit: str) -> None:
        self.what, self.estimate, self.unit = what, estimate, unit
        self.last = 0.0  # seconds since the start
        self.facts: dict[str, object] = {}

    def advance(self, amount: float, **facts: object) -> None:
        self.estimate.advance(amount)
        self.facts.update(facts)
        if self.estimate.elapsed - self.last >= _SECONDS_BETWEEN_LINES:
            self._say()

    def close(self) -> None:
        self._say(ended=True)

    def _say(self, *, ended: bool = False) -> None:
        self.last = self.estimate.elapsed
        share = self.estimate.share
        words = [counted(self.estimate.done, self.unit) if share is None else f"{100 * share:.0f} %"]
        words.append(rate_in_words(self.estimate, self.unit))
        words.append(f"took {clock(self.last)}" if ended else f"{describe_time_left(self.estimate)} left")
        words += [f"{key} {value}" for key, value in self.facts.items()]
        print(f"{self.what}: {', '.join(words)}", file=sys.stderr, flush=True)


@contextmanager
def _live(what: str, estimate: Estimate, unit: str) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn() if estimate.total else TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as live:
        # rich draws a moving bar where there is no total.
        task = live.add_task(what, total=estimate.total or None, done="", left="", rate="", facts="")
        live.update(task, completed=estimate.done)

        class Live:
            def __init__(self) -> None:
                self.estimate = estimate
                self.facts = ""

            def advance(self, amount: float, **facts: object) -> None:
                estimate.advance(amount)
                self.facts = ", ".join(f"{key} {value}" for key, value in facts.items()) or self.facts
                live.update(
                    task,
                    completed=estimate.done,
                    done=counted(estimate.done, unit),
                    left=f"{describe_time_left(estimate)} left" if estimate.total else "",
                    rate=rate_in_words(estimate, unit),
                    facts=self.facts,
                )

        yield Live()


def rate_in_words(estimate: Estimate, unit: str) -> str:
    """``1.2k tokens/s``, or that it is unknown."""
    return "rate unknown" if estimate.rate is None else f"{counted(estimate.rate, unit)}/s"


def describe_time_left(estimate: Estimate) -> str:
    """The time to the end, or ``unknown``."""
    return "unknown" if estimate.left is None else clock(estimate.left)


def counted(number: float, unit: str) -> str:
    """A number and its unit."""
    return human_bytes(number) if unit == "B" else f"{human(number)}{unit and ' ' + unit}"


def human(number: float) -> str:
    """A count, 1234567 as ``1.23M``; B stands for billions."""
    return _scaled(number, ("", "k", "M", "B", "T", "P"))


def human_bytes(number: float) -> str:
    """Bytes, 1234567 as ``1.23 MB``."""
    return _scaled(number, (" B", " kB", " MB", " GB", " TB", " PB"))


def _scaled(number: float, suffixes: tuple[str, ...]) -> str:
    for suffix in suffixes[:-1]:
        rounded = float(f"{number:.3g}")
        if abs(rounded) < 1000 or not math.isfinite(number):
            return f"{rounded:.3g}{suffix}"
        number /= 1000
    return f"{number:.3g}{suffixes[-1]}"


def clock(seconds: float) -> str:
    """3723 as ``1:02:03``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
