"""A comparison: equal FLOPs, resumable, paired by seed; p-values against known quantiles."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from megarc.config import build, load
from megarc.errors import UserError
from megarc.model import ModelConfig, Transformer, initialise
from megarc.science import MAKERS
from megarc.science.recipes import (
    ARMS,
    Campaign,
    CompareConfig,
    Result,
    arm_config,
    budget_of,
    flops_of,
    paired,
    score,
    targets_window,
    verdict,
)
from megarc.science.recipes.statistics import beyond
from megarc.train import Lengths, SavedModel
from megarc.train.run_position import Standing
from megarc.window import Window

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "launch"))

RUN = {
    "length": "60 steps",
    "window": {"recent": 16, "causal": 16},
    "model": {"layers": 1, "hidden": 32, "heads": 2, "vocabulary": 50},
    "data": {"train": [{"kind": "pointer_chase"}], "valid": [{"kind": "pointer_chase"}]},
    "batch": {"size": 8},
}


def comparison(**keys):
    return build(CompareConfig, {"run": RUN, **keys}, "test")


def result(arm, seed, nats, rate=1.0):
    return Result(arm, rate, "0.02 of run", seed, 10, 1e9, nats, 0.01, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("t", "freedom", "p"), [(12.7062, 1, 0.05), (2.77645, 4, 0.05), (4.60409, 4, 0.01), (0, 3, 1),
                                                 (2.08596, 20, 0.05), (1.9840, 100, 0.05)])  # fmt: skip
def test_student(t, freedom, p):
    assert beyond(t, freedom) == pytest.approx(p, rel=1e-3) and beyond(-t, freedom) == beyond(t, freedom)


def test_differences_are_paired_and_p_is_uniform_where_there_is_none():
    found = paired([1.0, 2.0, 3.0, 4.0], [1.5, 2.4, 3.6, 4.5])
    assert found.mean == pytest.approx(0.5) and found.error == pytest.approx(0.0816496 / 2)
    noise = np.random.default_rng(0)
    p = [paired(noise.normal(size=5), noise.normal(size=5)).p for _ in range(2000)]
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 0.02 and abs(np.mean(p) - 0.5) < 0.03
    assert math.isnan(paired([1.0], [2.0]).p)


def test_arms_have_equal_flops_and_their_windows():
    keys = comparison(late=0.75, loss={"share": 0.5, "token": 49})
    for arm in ARMS:
        config = arm_config(keys, arm)
        flops, steps = flops_of(config), Lengths(config).total
        assert 0 <= budget_of(keys) - flops < 1.5 * flops / steps, arm
        assert (config.objective.recent is not None) == arm.endswith("+loss")
        assert targets_window(keys, config).rows == 32 and targets_window(keys, config).stride == 16
    assert Lengths(arm_config(keys, "causal")).total == 60
    late = Lengths(arm_config(keys, "late"))
    assert [piece.window for piece in late.shapes.pieces] == [Window.plain(32), Window.split(16, 16)]
    assert late.shapes.pieces[1].sample == 8 * math.ceil(0.75 * late.total)
    # A loss on R costs the head's rows of hidden tokens.
    step = {
        arm: flops_of(arm_config(keys, arm)) / Lengths(arm_config(keys, arm)).total
        for arm in ("rc", "rc+loss")
    }
    assert step["rc+loss"] - step["rc"] == pytest.approx(8 * 3 * 2 * 0.5 * 0.15 * 15 * 32 * 128)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"arms": ["causal"]}, "one not"),
        ({"arms": ["rc"]}, "must be causal"),
        ({"arms": ["causal", "best"]}, "known are"),
        ({"run": {**RUN, "window": {"recent": 0, "causal": 8}}}, "plain window"),
        ({"run": {**RUN, "data": {**RUN["data"], "valid": []}}}, "scored on one"),
        ({"rates": [1.0, 1.0]}, "different numbers"),
        ({"late": 1.0}, "late"),
    ],
)
def test_what_cannot_be_compared_is_refused(keys, words):
    with pytest.raises(UserError, match=words):
        comparison(**keys)


def test_a_campaign_goes_on_and_tells_the_best_of_each_arm(tmp_path):
    keys = comparison(folder=str(tmp_path), arms=["causal", "causal-c", "rc"], rates=[0.5, 1.0], seeds=2)
    campaign = Campaign(keys, MAKERS, lambda run: None)
    assert len(campaign.grid()) == 6 and campaign.finals() == [] and verdict(campaign) is None
    lines = [result("causal", 0, 2.0, 0.5), result("causal", 0, 1.9), result("causal-c", 0, 2.5, 0.5),
             result("causal-c", 0, 2.6), result("rc", 0, 1.8, 0.5), result("rc", 0, math.nan)]  # fmt: skip
    from dataclasses import asdict

    import orjson

    campaign.file.write_bytes(b"".join(orjson.dumps(asdict(line)) + b"\n" for line in lines) + b'{"arm": "ca')
    assert [(one.arm, one.rate, one.seed) for one in campaign.finals()] == [
        ("causal", 1.0, 1), ("causal-c", 0.5, 1), ("rc", 0.5, 1),
    ]  # fmt: skip
    base, best, difference = verdict(campaign)
    assert (base, best, difference.pairs) == ("causal", "rc", 1) and difference.mean == pytest.approx(0.1)
    assert campaign.at_the_edge("rc")
    with campaign.file.open("ab") as file:
        file.write(b"\n" + orjson.dumps(asdict(result("causal", 1, 2.0))) + b"\n")
        file.write(orjson.dumps(asdict(result("rc", 1, 1.91, 0.5))) + b"\n")
    assert verdict(campaign)[2].mean == pytest.approx(0.095)

    from compare import finals_table, tries_table, words

    assert "Neither is clearly ahead" in words(campaign) or "Use rc" in words(campaign)
    assert tries_table(campaign).count("\n") == 9 and "below causal" in finals_table(campaign)


def test_a_task_is_scored_by_its_weights_under_the_own_mask():
    run = {**RUN, "window": {"recent": 24, "causal": 16}}
    run["model"] = {**RUN["model"], "vocabulary": 25}
    keys = build(CompareConfig, {"run": run, "arms": ["causal-c", "rc"], "targets": 100}, "test")
    model = Transformer(ModelConfig(layers=1, hidden=32, heads=2, vocabulary=25, initial_std=0.3)).double()
    initialise(model, model.config, 1)
    found = {}
    for arm in keys.arms:
        config = arm_config(keys, arm)
        saved = SavedModel(model.eval(), config, Standing(1, 8), Path("x"))
        found[arm] = score(keys, saved, targets_window(keys, config), MAKERS)
    # One model, so what seeing R both ways saves is the difference of the two scores.
    assert found["rc"].both_ways == pytest.approx(found["causal-c"].nats - found["rc"].nats, abs=1e-12)
    assert found["rc"].error > 0


def test_configurations_are_comparisons():
    for path in (ROOT / "configs" / "recipes").glob("*.yaml"):
        assert load(CompareConfig, path).arms


def test_the_command_trains_scores_and_goes_on(tmp_path):
    from support.scripts import python

    command = ["launch/compare.py", "--config", "configs/recipes/chase.yaml", f"folder={tmp_path}",
               "run.length=3 steps", "run.schedule.warmup=1 steps", "rates=[1.0]", "targets=32",
               "run.batch.size=4"]  # fmt: skip
    said = python(*command, "seeds=1")
    assert "1: causal-c-lr1" in said and "One seed shows no difference" in said
    said = python(*command, "seeds=2")
    assert "3: causal-c-lr1-w1steps-s1" in said and "\n1: " not in said
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(line["arm"], line["seed"]) for line in lines] == [
        ("causal-c", 0),
        ("rc", 0),
        ("causal-c", 1),
        ("rc", 1),
    ]
    assert all(0 < line["nats"] < 5 for line in lines)
    assert not list(tmp_path.rglob("checkpoints")) and (tmp_path / "loss.png").exists()
    from compare import report

    with pytest.raises(UserError, match="no result yet"):
        report(Campaign(comparison(folder=str(tmp_path / "none")), MAKERS, lambda run: None))
