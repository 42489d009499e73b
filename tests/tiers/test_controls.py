"""The stack and its controls on the same tokens; the sums behind the table."""

import numpy as np
import pytest
import torch

from megarc.config import build
from megarc.data import open_source
from megarc.errors import UserError
from megarc.inference import Sampling
from megarc.model import cost_of
from megarc.science import MAKERS
from megarc.tiers import LiveStack, StackConfig, StackPlan, makers, run_controls, score_tiers
from megarc.tiers.control_arms import ARMS, arm_config, rollout_rows
from megarc.tiers.score import Losses
from megarc.tiers.stack_flops import stack_flops
from megarc.train import Lengths, load_model, pretrain


@pytest.fixture(scope="module")
def trained(built, groups):
    """Every arm, in this process."""
    for arm in ARMS:
        if arm.name == arm.trained_as or arm.trained_as != "stack":
            for seed in (0, 1):
                pretrain(arm_config(built, arm, seed), groups, makers(MAKERS))
    return built


def test_every_arm_is_scored_on_the_same_tokens(trained, tmp_path):
    result = run_controls(trained, MAKERS, tmp_path)  # nothing is left to train
    columns, rows = result.table()
    assert [row[0] for row in rows] == [arm.name for arm in ARMS]
    assert all(len(row) == len(columns) for row in rows)
    first = result.outcomes[0].losses[0]
    for outcome in result.outcomes:
        for losses in outcome.losses:
            assert np.array_equal(losses.weights, first.weights) and losses.nll.shape == (21, 6)
            assert losses.nats_per_token != first.nats_per_token or losses is first
    assert len(result.gains()) == 4 and all(len(gains) == 6 for gains in result.gains().values())
    assert "'filler'" in result.words() and "2 seeds" in result.words()
    means = dict(zip((row[0] for row in rows), (float(row[4]) for row in rows), strict=True))
    for row in rows[1:]:
        assert float(row[6]) == pytest.approx(means[row[0]] - means["stack"], abs=2e-4)


def test_the_arm_of_the_same_compute_takes_as_many_flops(trained):
    arm = next(arm for arm in ARMS if arm.shorter)
    config = arm_config(trained, arm, 0)
    assert rollout_rows(trained) == 3 * 7 + 2 * 6
    assert config.window.recent == 50 - 33
    model = load_model(trained.run("top").folder).config.model
    own = Lengths(config).total * 4 * cost_of(model, config.window.build()).training_flops
    assert own == pytest.approx(stack_flops(trained), rel=0.5 / Lengths(config).total)
    assert len(config.data.train) == 3  # all that the stack was trained on


def test_a_tiers_loss_is_what_its_model_says(built):
    """The bottom tier has a shorter window: it sees the newest rows of the stack's."""
    losses = score_tiers(built, MAKERS)
    assert list(losses) == ["bottom", "middle", "top"]
    saved = load_model(built.run("bottom").folder)
    read = open_source(built.config.heldout, built.window.build(), MAKERS).read_many(np.arange(21))
    text = torch.as_tensor(read.tokens[:, -19:].astype(np.int64))
    with torch.no_grad():
        logits = saved.model.logits(text[:, :-1], slice(12, 18), 12)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), text[:, 13:].flatten(), reduction="none"
    )
    assert np.allclose(losses["bottom"].nll, expected.view(21, 6), atol=1e-5)
    assert np.array_equal(losses["bottom"].weights, losses["top"].weights)


def test_on_the_fly_is_what_is_stored(built):
    """The top tier's losses with roll-outs made on the spot are those with the stored ones."""
    window = built.window.build()
    base = open_source(built.config.heldout, window, MAKERS)
    stored = score_tiers(built, MAKERS)["top"].nll
    live = LiveStack(built, base.facts.reserved)
    numbers = np.arange(8)
    text = base.read_many(numbers).tokens.astype(np.int64)
    assert np.allclose(live.losses(text, numbers), stored[:8], atol=1e-5)


def test_scoring_a_text_through_the_tiers_is_window_by_window(built):
    base = open_source(built.config.heldout, built.window.build(), MAKERS)
    live = LiveStack(built, base.facts.reserved)
    text = np.random.default_rng(0).integers(0, 110, 150)
    targets = range(60, 131)  # neither end on a boundary
    score = live.evaluate(text, targets, batch=3)
    total = 0.0
    for start in range(60 - 51, 131 - 51, 6):
        rows = np.pad(text, (0, 60))[start : start + 57][None]
        nll = live.losses(rows, [start // 6])[0]
        total += sum(nll[j] for j in range(6) if start + 51 + j < 131)
    assert score.tokens == 71 and score.nats_per_token == pytest.approx(total / 71, rel=1e-5)


def test_generation_refreshes_and_stops(built):
    base = open_source(built.config.heldout, built.window.build(), MAKERS)
    live, reserved = LiveStack(built, base.facts.reserved), set(base.facts.reserved.values())
    prompt = base.read(0).tokens[:51].tolist()
    text = live.generate(prompt, 20, Sampling(seed=3))
    assert text == live.generate(prompt, 20, Sampling(seed=3)) != live.generate(prompt, 20, Sampling(seed=4))
    assert text[:51] == prompt and len(text) == 71 and not reserved & set(text[51:])
    stopped = live.generate(prompt, 20, Sampling(seed=3, stop=text[55]))
    assert stopped == text[: text.index(text[55], 51) + 1]
    assert len(live.generate([3], 9, Sampling(refresh=2))) == 10


def test_errors_come_from_windows_and_seeds():
    generator = np.random.default_rng(0)
    weights = np.ones((400, 5))
    spread = []
    for _ in range(200):
        shared = generator.normal(size=(400, 1))  # tokens of a window are hard or easy together
        losses = Losses(2 + shared + 0.1 * generator.normal(size=(400, 5)), weights)
        spread.append((losses.nats_per_token, losses.standard_error))
    means, errors = np.asarray(spread).T
    assert means.std() == pytest.approx(errors.mean(), rel=0.15)
    other = Losses(losses.nll + 0.5, weights)
    assert other.above(losses) == pytest.approx((0.5, 0.0), abs=1e-9)


def test_a_stack_needs_the_reserved_tokens(built):
    with pytest.raises(UserError, match="has no <ro>"):
        LiveStack(built, None)


def test_seeds_are_keys(built):
    tree = built.config.model_dump(mode="json") | {"controls": {"seeds": [5]}}
    assert StackPlan(build(StackConfig, tree, "test")).config.controls.seeds == [5]
