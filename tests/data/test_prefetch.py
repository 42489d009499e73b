from __future__ import annotations

import itertools
import threading
import time

import pytest

from megarc.data.prefetch import Ahead, announcing


def test_gives_everything_in_order() -> None:
    requests = [(first, 3) for first in range(200)]
    with Ahead(lambda first, count: (first, count), requests, depth=3) as batches:
        assert list(batches) == requests


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_reads_no_further_ahead_than_it_may(depth: int) -> None:
    asked: list[int] = []

    def read(first: int, count: int) -> int:
        asked.append(first)
        return first

    with Ahead(read, ((k, 1) for k in itertools.count()), depth=depth) as batches:
        for taken in range(1, 20):
            assert next(batches) == taken - 1
            time.sleep(0.002)
            assert len(asked) <= taken + depth


def test_the_next_batch_is_read_while_one_is_used() -> None:
    second = threading.Event()

    def read(first: int, count: int) -> int:
        if first == 1:
            second.set()
        return first

    with Ahead(read, [(0, 1), (1, 1)]) as batches:
        next(batches)
        assert second.wait(10)


def test_an_error_comes_where_its_batch_would_have() -> None:
    def read(first: int, count: int) -> int:
        if first == 3:
            raise OSError("the disk is gone")
        return first

    got = []
    with Ahead(read, ((k, 1) for k in itertools.count()), depth=4) as batches:
        with pytest.raises(OSError, match="gone"):
            for batch in batches:
                got.append(batch)
        assert got == [0, 1, 2]


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    for _ in range(20):
        with Ahead(lambda first, count: first, ((k, 1) for k in itertools.count())) as batches:
            assert next(batches) == 0
    with pytest.raises(KeyError), Ahead(lambda first, count: first, ((k, 1) for k in itertools.count())):
        raise KeyError("the loop failed")
    assert threading.active_count() == before


@pytest.mark.parametrize("reach", [0, 1, 3, 100])
def test_requests_are_announced_before_they_come_and_stay_as_they_are(reach):
    requests, events = [(8 * step, 8) for step in range(10)], []
    for request in announcing(iter(requests), lambda *one: events.append(("announced", one)), reach):
        events.append(("came", request))
    assert [one for what, one in events if what == "came"] == requests
    assert [one for what, one in events if what == "announced"] == requests
    for number, request in enumerate(requests):
        before = [one for what, one in events[: events.index(("came", request))] if what == "announced"]
        assert len(before) == min(number + reach + 1, 10)
