"""Likelihoods of continuations, many at once, against a loop that runs a whole forward pass for each token."""

import math

import pytest
import torch

from megarc.data import Pair
from megarc.errors import UserError
from megarc.inference import likelihoods
from megarc.model import ModelConfig, Transformer, initialise
from megarc.window import Window

CONFIG = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, vocabulary=50, initial_std=0.3)


@pytest.fixture(scope="module")
def model():
    built = Transformer(CONFIG).double()
    initialise(built, CONFIG, 5)
    return built.eval()


def pairs():
    """Contexts and continuations of every length, on both sides of R and of C."""
    generator = torch.Generator().manual_seed(3)

    def ids(length):
        return torch.randint(0, 50, (length,), generator=generator).tolist()

    return [Pair(ids(context), ids(length)) for context in (1, 6, 7, 19) for length in (1, 5, 13)]


def slow(model, pair, window, causal):
    """Token by token: the window that generation would be in, without a cache."""
    text, known, drawn, begun = list(pair.context), len(pair.context), 0, 0
    refresh = window.rows // 2 if window.stride == window.rows else window.stride
    total, greedy, first = 0.0, True, 0
    for token in pair.continuation:
        full = len(text) - first > window.rows
        if not begun or full or (window.recent and drawn == refresh):
            begun, drawn = min(known, window.rows - refresh + 1), 0
            first = known - begun
        recent = 0 if causal else min(window.recent, begun - 1)
        logits = model.logits(torch.tensor([text[first:]]), slice(-1, None), recent)[0, 0]
        total += float(logits.log_softmax(0)[token])
        greedy &= int(logits.argmax()) == token
        text.append(token)
        known, drawn = known + 1, drawn + 1
    return total, greedy


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [Window.split(6, 5), Window(3, 7, 4), Window.plain(8)], ids=str)
def test_batched_equals_the_slow_loop(model, window, causal):
    given = pairs()
    with torch.no_grad():
        best = model.logits(torch.tensor([given[0].context]), slice(-1, None), 0)[0, 0].argmax()
    given.append(Pair(given[0].context, [int(best)]))
    found = likelihoods(model, given, window, causal=causal)
    with torch.no_grad():
        for pair, one in zip(given, found, strict=True):
            total, greedy = slow(model, pair, window, causal)
            assert math.isclose(one.nats, total, abs_tol=1e-8) and one.greedy == greedy
    assert found[-1].greedy or not causal
    if window.recent and not causal:
        other = likelihoods(model, given, window, causal=True)
        assert max(abs(a.nats - b.nats) for a, b in zip(found, other, strict=True)) > 0.1


def test_bad_pairs_are_refused(model):
    for pair, said in ((Pair([], [1]), "prompt is empty"), (Pair([1], [50]), "token 50")):
        with pytest.raises(UserError, match=said):
            likelihoods(model, [pair], Window.plain(8))
    assert likelihoods(model, [Pair([1], [])], Window.plain(8))[0] == (0.0, True)
