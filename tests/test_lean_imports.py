"""Imports without garbage collection and without packages that nobody would use."""

import gc
import importlib
import sys
import weakref

import pytest
import torch

from megarc.lean_imports import uncollected, without
from megarc.train.engine.deepspeed_import import import_deepspeed


@pytest.fixture
def collecting():
    gc.enable()
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_within_and_what_is_there_at_its_end_is_set_aside(collecting):
    with uncollected():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(kept)


class Circle:
    def __init__(self):
        self.me = self


def test_what_was_garbage_before_is_not_kept(collecting):
    left = weakref.ref(Circle())
    with uncollected():
        pass
    assert left() is None


def test_an_engine_that_a_process_builds_later_keeps_nothing_of_those_before(collecting):
    """Each of them imports DeepSpeed anew; what is set aside then would never be freed."""
    import_deepspeed(torch.device("cpu"))
    living = Circle()
    left, frozen = weakref.ref(living), gc.get_freeze_count()
    import_deepspeed(torch.device("cpu"))
    assert gc.get_freeze_count() <= frozen
    del living
    gc.collect()
    assert left() is None


def test_where_nobody_collects_it_stays_so(collecting):
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()


def test_after_an_error_it_is_collected_again(collecting):
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()


def test_a_module_that_is_left_out_is_found_again_afterwards(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "left_out_of_this.py").write_text("there = 1\n")
    with without("left_out_of_this"), pytest.raises(ImportError):
        importlib.import_module("left_out_of_this")
    assert importlib.import_module("left_out_of_this").there == 1
    with without("left_out_of_this"):
        assert importlib.import_module("left_out_of_this").there == 1, "it was imported already"
    del sys.modules["left_out_of_this"]


def test_nothing_is_left_behind_by_an_error():
    with pytest.raises(ValueError), without("left_out_of_this"):
        raise ValueError
    assert "left_out_of_this" not in sys.modules
