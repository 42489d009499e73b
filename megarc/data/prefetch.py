"""Reads the next batches while the last one is being used: one thread, no processes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_PATIENCE = 5.0  # seconds that leaving waits for a read under way; the thread cannot outlive the process


class Ahead(Generic[T]):
    """Yields ``read(first, count)`` for each of ``requests``, in order, at most ``depth`` ahead.

    ::

        with Ahead(stream.read, requests) as batches:
            for batch in batches:
                ...

    An error of ``read`` or of ``requests`` is raised where its batch would have
    come. Leaving stops the thread; what it had read ahead is dropped.
    """

    def __init__(
        self, read: Callable[[int, int], T], requests: Iterable[tuple[int, int]], *, depth: int = 1
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth is {depth}; it must be 1 or more")
        self._read, self._requests, self._depth = read, requests, depth
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="megarc-ahead", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._batches()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(_PATIENCE)

    def _batches(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._ended or self._stopped)
                if not self._ready:
                    if self._error is not None and not self._stopped:
                        raise self._error
                    return
                batch = self._ready.popleft()
                self._changed.notify_all()
            yield batch

    def _work(self) -> None:
        try:
            for first, count in self._requests:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._stopped)
                    if self._stopped:
                        return
                batch = self._read(first, count)
                with self._changed:
                    if self._stopped:
                        return
                    self._ready.append(batch)
                    self._changed.notify_all()
        except BaseException as error:  # handed over to the reader, whatever it is
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def announcing(
    requests: Iterable[tuple[int, int]], announce: Callable[[int, int], None], reach: int
) -> Iterator[tuple[int, int]]:
    """``requests`` as they are; each is announced before the one that comes ``reach`` places earlier."""
    waiting: deque[tuple[int, int]] = deque()
    for request in requests:
        announce(*request)
        waiting.append(request)
        if len(waiting) > reach:
            yield waiting.popleft()
    yield from waiting
