"""A sliding window: the model against explicit intervals, while it decodes, and its FLOPs against a count."""

import numpy as np
import pytest
import torch

from megarc.attention import Branches, on_device
from megarc.config import build
from megarc.errors import UserError
from megarc.interval import Intervals, pairs_of, seen_by
from megarc.model import ModelConfig, Transformer, cost_of, initialise
from megarc.window import Narrowing, Window

ROWS = 23


def model_of(sliding, **keys):
    config = ModelConfig(
        layers=2,
        hidden=32,
        heads=4,
        kv_heads=2,
        vocabulary=50,
        initial_std=0.3,
        sliding_window=sliding,
        **keys,
    )
    model = Transformer(config).double()
    initialise(model, config, 1)
    return model


def tokens_of(batch, rows=ROWS):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 50, (batch, rows)))


DOCUMENTS = np.repeat([[0, 1, 2, 3], [0, 1, 1, 1]], [5, 1, 7, 10], axis=1).astype(np.int32)


@pytest.mark.parametrize("sliding", [1, 2, 7, 22, 23, 100])
@pytest.mark.parametrize("recent", [0, 1, 9, ROWS])
@pytest.mark.parametrize("documents", [None, DOCUMENTS])
def test_it_is_the_model_whose_rows_have_these_intervals(sliding, recent, documents):
    """Losses and gradients; plain windows, and documents with an R of their own."""
    tokens, given = tokens_of(2, ROWS + 1), np.full(2, recent, dtype=np.int32)
    ours, plain = model_of(sliding), model_of(None)
    explicit = Intervals.of(ROWS, given, documents, sliding=sliding)
    seen = seen_by(ROWS, given, documents)
    gradients = []
    for model, what in ((ours, seen), (plain, explicit)):
        loss = model(tokens, slice(None), on_device(what, "cpu")).objective
        loss.backward()
        gradients.append([loss.detach(), *(value.grad for value in model.parameters())])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    assert pairs_of(seen, ROWS, 2, Narrowing(sliding)) == explicit.pairs()


def test_no_row_sees_what_lies_further_back_than_its_layers_reach():
    model, tokens = model_of(4), tokens_of(1)
    other = tokens.clone()
    other[0, 3] = (other[0, 3] + 1) % 50
    with torch.no_grad():
        same = (model.logits(tokens, slice(None), 0) == model.logits(other, slice(None), 0)).all(-1)[0]
    # two layers of three rows
    assert same.nonzero().flatten().tolist() == [0, 1, 2, *range(3 + 2 * 3 + 1, ROWS)]


@pytest.mark.parametrize("recent", [0, 5])
def test_texts_of_any_length_decode_as_whole_windows_do(recent):
    model, tokens = model_of(6), tokens_of(3)
    with torch.no_grad():
        wanted = model.logits(tokens, slice(None), recent)
        cache = model.empty_cache(3, ROWS)
        parts = [(0, 8), (8, 9), (9, 13), (13, ROWS)]
        found = [model.logits(tokens[:, a:b], slice(None), recent if a == 0 else 0, cache) for a, b in parts]
        assert torch.allclose(torch.cat(found, 1), wanted, atol=1e-10)

        begins, slots = [8, 11, 16], model.empty_slots(3, ROWS)
        for slot, begin in enumerate(begins):
            model.logits(
                tokens[slot : slot + 1, :begin],
                slice(-1, None),
                recent,
                slots.filling([slot], [begin], False),
            )
        for number in range(ROWS - max(begins)):
            step = slots.stepping(3)
            given = torch.stack([tokens[slot, begin + number] for slot, begin in enumerate(begins)])[:, None]
            logits = model.logits(given, slice(-1, None), 0, step, step.positions)[:, 0]
            expected = torch.stack([wanted[slot, begin + number] for slot, begin in enumerate(begins)])
            assert torch.allclose(logits, expected, atol=1e-10), number


@pytest.mark.parametrize("sliding", [2, 6])
def test_branches_of_one_beginning_slide_too(sliding):
    model, tokens = model_of(sliding), tokens_of(2)
    more = torch.from_numpy(np.random.default_rng(1).integers(0, 50, (6, 5)))
    whole = torch.cat([tokens[:, :9].repeat_interleave(3, 0), more], 1)
    with torch.no_grad():
        wanted = model.logits(whole, slice(None), 4)
        beginning = model.empty_cache(2, 9)
        model.logits(tokens[:, :9], slice(-1, None), 4, beginning)
        branches = Branches(beginning, 3, 5)
        for number in range(5):
            found = model.logits(more[:, number : number + 1], slice(None), 0, branches)
            assert torch.allclose(found[:, 0], wanted[:, 9 + number], atol=1e-10)


@pytest.mark.parametrize("window", [Window.split(8, 16), Window.plain(24), Window(23, 1, 1)])
@pytest.mark.parametrize("sliding", [1, 5, 24, 60])
def test_flops_count_the_pairs_that_are_left(window, sliding):
    row = np.arange(24)
    sees = window.allow(row[:, None], row) & (row[:, None] - row < sliding)
    assert window.pairs(sliding) == sees.sum()
    keys = {"layers": 3, "hidden": 64, "heads": 4, "vocabulary": 300}
    cost, plain = (cost_of(ModelConfig(**keys, sliding_window=one), window) for one in (sliding, None))
    assert cost.attention_flops * window.pairs() == plain.attention_flops * sees.sum()
    assert cost.full_square_flops == plain.full_square_flops


@pytest.mark.parametrize("keys", [{"sliding_window": 0}, {"sliding_window": 4, "mixers": "ssm"},
                                  {"sliding_window": 4, "mixers": "ssm_attention attention"}])  # fmt: skip
def test_what_cannot_slide_is_refused(keys):
    with pytest.raises(UserError, match="sliding_window"):
        build(ModelConfig, keys, "test")
    assert build(ModelConfig, {"sliding_window": 4, "mixers": "ssm attention"}, "test").sliding_window == 4
