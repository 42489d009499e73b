"""Heads that see R causally: against a mask a head, while the model decodes, over tensor ranks' parts, and in FLOPs."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from megarc.attention import Branches, on_device
from megarc.config import build
from megarc.errors import UserError
from megarc.interval import Intervals, pairs_of, seen_by
from megarc.model import ModelConfig, Transformer, cost_of, initialise
from megarc.model.mixers import attention
from megarc.window import Narrowing, Window

ROWS, HEADS = 23, 4
DOCUMENTS = np.repeat([[0, 1, 2, 3], [0, 1, 1, 1]], [5, 1, 7, 10], axis=1).astype(np.int32)


def model_of(causal, **keys):
    sizes = {"layers": 2, "hidden": 32, "heads": HEADS, "kv_heads": 2, "vocabulary": 50, "initial_std": 0.3}
    config = ModelConfig(**sizes, causal_heads=causal, **keys)
    model = Transformer(config).double()
    initialise(model, config, 1)
    return model


def tokens_of(batch, rows=ROWS):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 50, (batch, rows)))


def masks(seen, batch, rows, causal):
    """[batch, heads, rows, rows], from the definition."""
    row = np.arange(rows)
    if isinstance(seen, Intervals):
        both_ways = np.stack([seen.allow(row)[sample] for sample in range(batch)])
    else:
        both_ways = np.broadcast_to((row < seen) | (row <= row[:, None]), (batch, rows, rows))
    heads = np.repeat(both_ways[:, None], HEADS, axis=1).copy()
    heads[:, :causal] &= row <= row[:, None]
    return heads


@pytest.mark.parametrize("causal", [2, 4])
@pytest.mark.parametrize("recent", [0, 1, 9, ROWS])
@pytest.mark.parametrize("documents", [None, DOCUMENTS])
def test_each_head_has_its_own_mask(monkeypatch, causal, recent, documents):
    """Losses and gradients; plain windows, and documents with an R of their own."""
    tokens, given = tokens_of(2, ROWS + 1), np.full(2, recent, dtype=np.int32)
    seen = seen_by(ROWS, given, documents)
    wanted = torch.from_numpy(masks(seen, 2, ROWS, causal))

    def dense(q, k, v, *_):
        return scaled_dot_product_attention(q, k, v, wanted, enable_gqa=True)

    results = []
    for by_head in (attention.attend_by_head, dense):
        monkeypatch.setattr(attention, "attend_by_head", by_head)
        model = model_of(causal)
        loss = model(tokens, slice(None), on_device(seen, "cpu")).objective
        loss.backward()
        results.append([loss.detach(), *(value.grad for value in model.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    counted = pairs_of(seen, ROWS, 2, Narrowing(causal=causal / HEADS))
    assert counted == pytest.approx(wanted.sum().item() / HEADS)


def test_heads_that_are_all_causal_make_a_causal_model():
    tokens = tokens_of(2)
    with torch.no_grad():
        found = model_of(4).logits(tokens, slice(None), 9)
        assert torch.equal(found, model_of(0).logits(tokens, slice(None), 0))
        assert not torch.allclose(found, model_of(2).logits(tokens, slice(None), 9))


@pytest.mark.parametrize("sliding", [None, 6])
def test_texts_of_any_length_decode_as_whole_windows_do(sliding):
    model, tokens, recent = model_of(2, sliding_window=sliding), tokens_of(3), 7
    with torch.no_grad():
        wanted = model.logits(tokens, slice(None), recent)
        cache = model.empty_cache(3, ROWS)
        parts = [(0, 8), (8, 9), (9, 13), (13, ROWS)]
        found = [model.logits(tokens[:, a:b], slice(None), recent if a == 0 else 0, cache) for a, b in parts]
        assert torch.allclose(torch.cat(found, 1), wanted, atol=1e-10)

        begins, slots = [8, 11, 16], model.empty_slots(3, ROWS)
        for slot, begin in enumerate(begins):
            one = tokens[slot : slot + 1, :begin]
            model.logits(one, slice(-1, None), recent, slots.filling([slot], [begin], False))
        step = slots.stepping(3)
        given = torch.stack([tokens[slot, begin] for slot, begin in enumerate(begins)])[:, None]
        logits = model.logits(given, slice(-1, None), 0, step, step.positions)[:, 0]
        expected = torch.stack([wanted[slot, begin] for slot, begin in enumerate(begins)])
        assert torch.allclose(logits, expected, atol=1e-10)

        beginning = model.empty_cache(3, 9)
        model.logits(tokens[:, :9], slice(-1, None), recent, beginning)
        branches = Branches(beginning, 1, 5)
        for row in range(9, 14):
            found = model.logits(tokens[:, row : row + 1], slice(None), 0, branches)
            assert torch.allclose(found[:, 0], wanted[:, row], atol=1e-10)


@pytest.mark.parametrize("window", [Window.split(8, 16), Window.plain(24), Window(23, 1, 1)])
def test_flops_are_those_of_each_heads_pairs(window):
    keys = {"layers": 3, "hidden": 64, "heads": 4, "vocabulary": 300}
    allowed = masks(window.recent, 1, 24, 3).sum()
    found = cost_of(ModelConfig(**keys, causal_heads=3), window)
    assert found.attention_flops == 3 * 4 * 16 * allowed
    plain = cost_of(ModelConfig(**keys), window)
    assert found.matrix_flops == plain.matrix_flops and found.parameters == plain.parameters


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"causal_heads": 5}, "more than heads 4"),
        ({"causal_heads": 1, "kv_heads": 2}, "give a multiple of 2"),
        ({"causal_heads": 2, "mixers": ["ssm", "attention"]}, "leave causal_heads out"),
    ],
)
def test_bad_counts_are_refused(keys, words):
    with pytest.raises(UserError, match=words):
        build(ModelConfig, {"heads": 4, **keys}, "a file")
