"""Scores against one window at a time, and the same targets for every window."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megarc.attention import on_device
from megarc.errors import UserError
from megarc.inference import Score, evaluate, loss_by_context
from megarc.inference.score import block_of
from megarc.interval import Intervals
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


def test_a_target_depends_on_nothing_behind_it(model):
    """Nor does its score on the other targets that are asked for."""
    window = Window(4, 6, 4)
    for target in (9, 40, 41, 42, 43, 135):
        before = evaluate(model, TEXT, window, range(7, target + 1)).sums
        other = TEXT.copy()
        other[target + 1 :] = (other[target + 1 :] + 1) % 50
        assert evaluate(model, other, window, range(7, target + 1)).sums == before
        other[target] = (other[target] + 1) % 50
        assert evaluate(model, other, window, range(7, target + 1)).sums != before


@pytest.mark.parametrize("window", [Window.split(6, 5), Window.plain(8)])
def test_attention_stays_inside_a_document(model, window):
    """Each row's loss is that of its document alone, at the same place in the window."""
    begins = np.array([0, 30, 33, 90])

    def documents_of(start, stop):
        return np.searchsorted(begins, np.arange(start, stop), side="right") - 1

    targets = range(20, 137)
    score = evaluate(model, TEXT, window, targets, documents=documents_of, batch=4)
    assert score.nats_per_token != evaluate(model, TEXT, window, targets).nats_per_token
    total = 0.0
    for start in range(20 - window.first_target, 137 - window.first_target, window.stride):
        places = np.minimum(np.arange(start, start + window.tokens), 136)
        rows = torch.as_tensor(TEXT[places].astype(np.int64))[None]
        segments = documents_of(0, 137)[places[:-1]][None]
        recent = np.array([window.recent], np.int32)
        seen = on_device(Intervals.of(window.rows, recent, segments), "cpu")
        nll = model(rows, window.loss_rows, seen).nll[0]
        total += nll[: max(0, 137 - start - window.first_target)].sum().item()
    assert score.nats_per_token == pytest.approx(total / len(targets), rel=1e-9)


def test_errors_are_those_of_blocks_and_differences_are_paired():
    noise = np.random.default_rng(1)
    targets = range(1000, 1000 + 64 * 50)
    means, errors = [], []
    for _ in range(300):
        # Stretches that are hard or easy as a whole, and tokens that differ within.
        sums = 50 * noise.normal(3, 0.4, 64) + noise.normal(0, 1, (64, 50)).sum(1)
        score = Score(targets, tuple(sums))
        means.append(score.nats_per_token)
        errors.append(score.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)
    easier = Score(targets, tuple(np.array(score.sums) - 50 * 0.25))
    assert easier.lower_than(score) == pytest.approx((0.25, 0.0), abs=1e-9)
    with pytest.raises(ValueError, match="other targets"):
        easier.lower_than(Score(range(1000), score.sums))


@given(st.integers(0, 10**6), st.integers(1, 3000))
def test_stretches_cut_the_targets_evenly(first, count):
    targets = range(first, first + count)
    which = block_of(np.arange(first, first + count), targets)
    sizes = np.bincount(which)
    assert len(sizes) == min(64, count) and sizes.max() - sizes.min() <= 1
    assert (np.diff(which) >= 0).all()


def test_a_single_target_has_no_standard_error(model):
    assert np.isnan(evaluate(model, TEXT, Window.plain(8), range(20, 21)).standard_error)


def test_a_text_of_another_vocabulary_is_refused(model):
    text = TEXT.copy()
    text[77] = 50  # an id that only pads the vocabulary
    with pytest.raises(UserError, match="token 77 is 50, but the model knows 50"):
        evaluate(model, text, Window.plain(8), range(20, 137))
    evaluate(model, text, Window.plain(8), range(20, 70))


def test_texts_and_contexts_that_do_not_fit_are_refused(model):
    with pytest.raises(UserError, match=r"has 8 tokens, a window .* reads 9"):
        evaluate(model, TEXT[:8], Window.plain(8), range(8, 8))
    for rows in (0, 17):
        with pytest.raises(UserError, match=f"context of {rows} rows"):
            loss_by_context(model, TEXT, Window.split(8, 8), [rows], range(20, 137))


@pytest.mark.parametrize("targets", [range(5, 137), range(20, 138), range(30, 30)])
def test_what_cannot_be_scored_is_refused(model, targets):
    with pytest.raises(UserError, match=r"can score positions 8 to 136|nothing to score"):
        evaluate(model, TEXT, Window.masked_head(16, 7), targets)
