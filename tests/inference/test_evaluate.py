"""Scores against one window at a time, and the same targets for every window."""

import numpy as np
import pytest
import torch

from megarc.errors import UserError
from megarc.inference import evaluate, loss_by_context
from megarc.model import ModelConfig, Transformer, initialise
from megarc.window import Window

CONFIG = ModelConfig(layers=1, hidden=32, heads=2, vocabulary=50, initial_std=0.3)
TEXT = np.random.default_rng(0).integers(0, 50, 137).astype(np.uint16)


@pytest.fixture(scope="module")
def model():
    built = Transformer(CONFIG).double()
    initialise(built, CONFIG, 5)
    return built.eval()


@pytest.mark.parametrize("window", [Window.split(6, 5), Window(3, 7, 4), Window.plain(8), Window(0, 8, 1)])
@pytest.mark.parametrize("targets", [range(8, 137), range(20, 61), range(100, 101)])
def test_each_target_once_from_the_window_that_predicts_it(model, window, targets):
    first = targets.start - window.first_target
    nll = {}
    for start in range(first, targets.stop, window.stride):
        rows = torch.as_tensor(TEXT[start : start + window.rows].astype(np.int64))[None]
        logits = model.logits(rows, slice(None), min(window.recent, rows.shape[1]))[0].log_softmax(-1)
        for row in range(rows.shape[1])[window.loss_rows]:
            target = start + row + 1
            if target in targets:
                assert target not in nll
                nll[target] = -logits[row, TEXT[target]].item()
    assert sorted(nll) == list(targets)
    score = evaluate(model, TEXT, window, targets, batch=3)
    assert score.tokens == len(targets)
    assert score.nats_per_token == pytest.approx(np.mean(list(nll.values())), rel=1e-9)


def test_units(model):
    score = evaluate(model, TEXT, Window.plain(8), range(8, 137), bytes_per_token=3.0)
    assert score.bits_per_token == pytest.approx(score.nats_per_token / np.log(2))
    assert score.bits_per_byte == pytest.approx(score.bits_per_token / 3)
    assert evaluate(model, TEXT, Window.plain(8), range(8, 137)).bits_per_byte is None


def test_more_context_is_windows_of_the_same_kind(model):
    points = loss_by_context(model, TEXT, Window.split(8, 8), [4, 8, 16], range(16, 137))
    assert [context for context, _ in points] == [3.5, 6.5, 12.5]
    for (_, score), window in zip(
        points, (Window.split(2, 2), Window.split(4, 4), Window.split(8, 8)), strict=True
    ):
        assert score == evaluate(model, TEXT, window, range(16, 137))


@pytest.mark.parametrize("targets", [range(5, 137), range(20, 138), range(30, 30)])
def test_what_cannot_be_scored_is_refused(model, targets):
    with pytest.raises(UserError, match=r"can score positions 8 to 136|nothing to score"):
        evaluate(model, TEXT, Window.masked_head(16, 7), targets)
