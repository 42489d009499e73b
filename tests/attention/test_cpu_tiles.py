"""The rectangles of the CPU's engine: every allowed pair once, and exact at sizes that are halved many times."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.attention import cpu_tiles, cpu_whole
from megarc.attention.attention_call import Inputs
from megarc.attention.parity import CASES, TOLERANCE, Case, worst
from megarc.window import allow


@pytest.fixture
def tiny_tiles(monkeypatch):
    """Limits that cut even tests' sizes into many tiles."""
    limits = {"_LEAST_ROWS": 17, "_LEAST_PRODUCTS": 1, "_KEYS": 16, "_ELEMENTS": 1}
    for name, value in limits.items():
        monkeypatch.setattr(cpu_tiles, name, value)
    monkeypatch.setattr(cpu_whole, "MOST_ROWS", 0)


@settings(max_examples=40)
@given(st.integers(1, 400), st.data())
def test_tiles_hold_every_allowed_pair_once_and_few_others(keys, data):
    recent = data.draw(st.integers(0, keys))
    rows = data.draw(st.integers(max(1, keys - recent), keys))
    most = data.draw(st.sampled_from([None, 16, 256]))
    q, k = torch.empty(1, 64, rows, 64, device="meta"), torch.empty(1, 64, keys, 64, device="meta")
    seen = torch.zeros(rows, keys, dtype=torch.int64)
    for tile in cpu_tiles._tiles(Inputs(q, k, k, 1.0), recent, most):
        part = seen[tile.rows, tile.keys]
        part += torch.ones_like(part).tril() if tile.causal else 1
        assert not tile.causal or part.shape[0] == part.shape[1] <= cpu_tiles._LEAST_ROWS
    row = torch.arange(keys - rows, keys)[:, None]
    assert torch.equal(seen, allow(row, torch.arange(keys), recent).long())


@pytest.mark.parametrize("case", [*CASES[::2], Case(300, 0), Case(300, 40, heads=4, kv_heads=2)], ids=str)
def test_many_tiles_are_exact(case, tiny_tiles):
    assert worst("split_cpu", case, torch.float64) <= TOLERANCE[torch.float64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_many_tiles_in_other_types(dtype, tiny_tiles):
    assert worst("split_cpu", Case(200, 70), dtype) <= TOLERANCE[dtype]
