"""Work is shared out among forks; one that has grown makes room for a fresh one, and nothing is lost."""

import os

import pytest

from megarc.corpus.packing import workers as work_shared
from megarc.corpus.packing.workers import share_out
from megarc.errors import UserError

KEPT: list[int] = []


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """However much this process holds already."""
    monkeypatch.setattr(work_shared, "_LEAST_GROWTH", 0)


def growing(item, tell):
    KEPT.append(item)
    tell((item, os.getpid()))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("most", [0, 1e6], ids=["retiring", "staying"])
def test_every_item_once_by_workers_that_stay_or_retire(workers, most):
    heard = []
    share_out(growing, range(7), workers, heard.append, str, most_megabytes=most)
    assert sorted(item for item, _ in heard) == list(range(7))
    processes = {process for _, process in heard}
    assert len(processes) == 7 if most == 0 else len(processes) <= workers
    assert os.getpid() not in processes and not KEPT


def test_a_mistake_is_told_by_whoever_took_the_place():
    def failing(item, tell):
        growing(item, tell)
        if item == 4:
            raise UserError("the fifth is bad")

    with pytest.raises(UserError, match="fifth"):
        share_out(failing, range(7), 2, lambda news: None, str, most_megabytes=0)
