"""The probe against scores made window by window, and against a model that is known to use what lies in R."""

import numpy as np
import pytest
import torch

from megarc.errors import UserError
from megarc.inference import Measured, evaluate, probe, probe_window
from megarc.model import ModelConfig, Transformer, initialise
from megarc.report import probe_facts, probe_tables, probe_words
from megarc.window import Window

CONFIG = ModelConfig(layers=2, hidden=32, heads=2, vocabulary=50, initial_std=0.3)
TEXT = np.random.default_rng(0).integers(0, 50, 400).astype(np.uint16)
TARGETS = range(20, 397)


@pytest.fixture(scope="module")
def model():
    built = Transformer(CONFIG).double()
    initialise(built, CONFIG, 5)
    return built.eval()


@pytest.mark.parametrize("trained", [Window.split(8, 8), Window.plain(16), Window(8, 8, 3)])
def test_each_mask_and_text_against_scores_made_one_by_one(model, trained):
    window = probe_window(trained, [0, 3, 8])
    assert window.stride == min(8, trained.stride) and window.recent == trained.recent
    found = probe(model, TEXT, window, [3, 8], TARGETS)
    own = evaluate(model, TEXT, window, TARGETS)
    assert found.own.mean == pytest.approx(own.nats_per_token, rel=1e-12)
    assert set(found.masks) == {0, 3, 8} and found.boundary == 8 and set(found.texts) == {7, 8}
    nothing = found.masks[trained.recent]
    assert nothing.more == Measured(0.0, 0.0)
    for recent, change in found.masks.items():
        score = evaluate(model, TEXT, Window(recent, 16 - recent, window.stride), TARGETS)
        assert change.loss.mean == pytest.approx(score.nats_per_token, rel=1e-12)
        assert change.more.mean == pytest.approx(score.nats_per_token - own.nats_per_token, abs=1e-12)
    # Other text in the first 8 rows, by hand.
    by_row = {}
    for start in range(
        TARGETS.start - window.first_target, TARGETS.stop - window.first_target, window.stride
    ):
        places = np.minimum(np.arange(start, start + 17), 399)
        tokens = TEXT[places].astype(np.int64)
        tokens[:8] = TEXT[(np.arange(start, start + 8) + 200) % 400]
        with torch.inference_mode():
            nll = model(torch.as_tensor(tokens)[None], window.loss_rows, trained.recent).nll[0]
        for row, value in zip(range(16)[window.loss_rows], nll.tolist(), strict=True):
            if start + row + 1 < TARGETS.stop:
                by_row.setdefault(row - 8 + 1, []).append(value)
    change = found.texts[8]
    assert change.loss.mean == pytest.approx(np.mean(np.concatenate(list(by_row.values()))), rel=1e-12)
    assert [rows for begin, end in found.rows for rows in range(begin, end + 1)] == sorted(by_row)


def test_a_text_that_the_mask_wrote_is_predicted_worse_by_another():
    model = Transformer(CONFIG).double()
    initialise(model, CONFIG, 5)
    window = Window(8, 8, 8)
    # The text is drawn from the model's own [R | C] distribution, so that its own mask is the right one.
    noise, text = np.random.default_rng(1), list(range(17))
    for _ in range(60):
        for row in range(8):
            seen = torch.as_tensor([text[len(text) - 9 - row :]])
            logits = model.logits(seen, slice(-1, None), 8)[0, -1, :50]
            text.append(int(noise.choice(50, p=logits.softmax(-1).detach().numpy())))
    tokens = np.array(text, dtype=np.uint16)
    found = probe(model.eval(), tokens, window, [0], range(17, len(tokens)))
    assert found.both_ways.mean > 0.05 and found.both_ways.clear
    assert found.text.mean > 0.05 and found.text.clear
    words = probe_words({"it": found})
    assert "uses seeing R both ways" in words and "uses R's text" in words
    facts = probe_facts(found)
    assert facts["uses_both_ways"] is True and facts["uses_text"] is True
    shown = probe_tables({"it": found})
    assert "causal R" in shown and "R of 8 rows (its own)" in shown and "other text in rows 1-8" in shown


def test_random_text_is_used_by_no_model(model):
    """A model that knows nothing of a text gains nothing by its R: the words say so."""
    quiet = Transformer(CONFIG).double()
    initialise(quiet, CONFIG, 5)
    with torch.no_grad():
        for block in quiet.blocks:
            for weight in block.parameters():
                weight.mul_(1e-6)
    found = probe(quiet.eval(), TEXT, Window(8, 8, 8), [0, 8], TARGETS)
    assert "does not use seeing R both ways" in probe_words({"it": found})
    assert "does not measurably use R's text" in probe_words({"it": found})


def test_what_leaves_no_row_to_score_is_refused(model):
    with pytest.raises(UserError, match="leaves 0 rows"):
        probe_window(Window.split(8, 8), [16])
    with pytest.raises(UserError, match="leaves 8 rows"):
        probe_window(Window.plain(16), [8], stride=9)
    with pytest.raises(UserError, match="between 1 and 8"):
        probe(model, TEXT, Window(0, 16, 8), [9], TARGETS)
    with pytest.raises(UserError, match="between 1 and 8"):
        probe(model, TEXT, Window(0, 16, 8), [0], TARGETS)
