"""Imports without garbage collection and without packages that nobody would use."""

import gc
import importlib
import sys

import pytest

from megarc.lean_imports import uncollected, without


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
