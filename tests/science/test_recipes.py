"""A comparison: equal FLOPs, resumable, paired by seed; p-values against known quantiles."""

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch

from megarc.config import build, load, to_dict
from megarc.corpus import IndexedWriter
from megarc.corpus.indexed.manifest import write_manifest
from megarc.corpus.packing.assemble import manifest_of
from megarc.data import open_stream
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
from megarc.science.statistics import beyond
from megarc.train import Lengths, SavedModel, open_train
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
    control = Lengths(arm_config(keys, "late-c"))
    assert [piece.window for piece in control.shapes.pieces] == [Window.plain(32), Window(0, 32, 16)]
    assert late.shapes.pieces[1].sample == 8 * math.ceil(0.75 * late.total)
    # A loss on R costs the head's rows of hidden tokens.
    step = {
        arm: flops_of(arm_config(keys, arm)) / Lengths(arm_config(keys, arm)).total
        for arm in ("rc", "rc+loss")
    }
    assert step["rc+loss"] - step["rc"] == pytest.approx(8 * 3 * 2 * 0.5 * 0.15 * 15 * 32 * 128)
    # Its causal controls have the same inputs, or hide in every row.
    control = arm_config(keys, "late-c+loss")
    assert [piece.window for piece in Lengths(control).shapes.pieces] == [Window.plain(32), Window(0, 32, 16)]
    rows = {arm: arm_config(keys, arm).objective.recent.rows for arm in ARMS if arm.endswith("+loss")}
    assert rows["causal+loss"] == "all" and rows["late+loss"] == "recent" and rows["late-c+loss"] == "context"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"arms": ["causal"]}, "one not"),
        ({"arms": ["rc"]}, "must be causal"),
        ({"arms": ["causal", "best"]}, "known are"),
        ({"arms": ["causal", "causal", "rc"]}, "named twice"),
        ({"run": {**RUN, "window": {"recent": 0, "causal": 8}}}, "plain window"),
        ({"run": {**RUN, "data": {**RUN["data"], "valid": []}}}, "scored on one"),
        ({"rates": [1.0, 1.0]}, "different numbers"),
        ({"late": 1.0}, "late"),
        ({"run": {**RUN, "data": {**RUN["data"], "packing": "best_fit"}}}, "late-c"),
    ],
)
def test_what_cannot_be_compared_is_refused(keys, words):
    with pytest.raises(UserError, match=words):
        comparison(**keys)


def test_a_campaign_goes_on_and_tells_the_best_of_each_arm(tmp_path):
    keys = comparison(folder=str(tmp_path), arms=["causal", "causal-c", "rc"], rates=[0.5, 1.0], seeds=2)
    campaign = Campaign(keys, MAKERS, lambda run: True)
    assert len(campaign.grid()) == 6 and campaign.finals() == [] and verdict(campaign) is None
    lines = [result("causal", 0, 2.0, 0.5), result("causal", 0, 1.9), result("causal-c", 0, 2.5, 0.5),
             result("causal-c", 0, 2.6), result("rc", 0, 1.8, 0.5), result("rc", 0, math.nan)]  # fmt: skip
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


def test_a_comparison_without_a_verdict_says_what_is_missing(tmp_path):
    from compare import words

    keys = comparison(folder=str(tmp_path), arms=["causal", "rc"], rates=[0.5, 1.0])
    campaign = Campaign(keys, MAKERS, lambda run: True)
    campaign.file.write_bytes(orjson.dumps(asdict(result("rc", 0, 2.0))) + b"\n")
    assert words(campaign).endswith("Runs of the grid that are missing: causal 2, rc 1.")


@pytest.mark.parametrize(
    ("arms", "gained", "said"),
    [
        (["causal-c", "rc"], 0.2, None),
        (["causal-c", "rc"], 0.002, "worth 0.0020 nats to rc"),
        (["causal", "rc"], 0.2, "causal-c, with the same inputs and loss rows, has not been run"),
        (["causal", "mix+loss"], 0.2, "a causal arm, with the same inputs"),
    ],
)
def test_a_verdict_says_whether_the_mask_makes_the_difference(tmp_path, arms, gained, said):
    from compare import words

    campaign = Campaign(
        comparison(folder=str(tmp_path), arms=arms, rates=[1.0], seeds=2), MAKERS, lambda run: True
    )
    lines = [result(arms[0], seed, 2.0 + 0.01 * seed) for seed in range(2)]
    lines += [replace(result(arms[1], seed, 1.5 + 0.011 * seed), both_ways=gained) for seed in range(2)]
    campaign.file.write_bytes(b"".join(orjson.dumps(asdict(line)) + b"\n" for line in lines))
    found = words(campaign)
    assert found.startswith(f"Use {arms[1]}") and (said or "p = ") in found
    assert ("mask" in found) == (said is not None)


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


def write_pairs(prefix, seed):
    chance = np.random.default_rng(seed)
    with IndexedWriter(prefix, np.uint16) as writer:
        for _ in range(1200):
            question, answer = chance.integers(1, 14, 2).tolist()
            writer.add(chance.integers(0, 40, question + answer), answers=[question])
        write_manifest(prefix, manifest_of(writer.finish(), prefix))
    return prefix


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Questions and answers, packed into rows of 32."""
    source = [{"path": str(write_pairs(tmp_path_factory.mktemp("pairs") / "corpus", seed=0))}]
    data = {"train": source, "valid": source, "packing": "best_fit"}
    arms = [arm for arm in ARMS if not arm.startswith("late-c")]
    return build(
        CompareConfig,
        {"run": {**RUN, "data": data}, "arms": arms, "loss": {"share": 0.5, "token": 49}},
        "test",
    )


def test_arms_on_packed_pairs_have_equal_flops_counted_from_their_rows(pairs):
    """Every allowed pair and every row with weight; a row of the causal arm predicts questions too."""
    counts = {}
    for arm in ARMS:
        if arm.startswith("late-c"):
            continue
        config = arm_config(pairs, arm)
        flops, lengths = flops_of(config), Lengths(config)
        assert 0 <= budget_of(pairs) - flops < 1.5 * flops / lengths.total, arm
        read = open_train(config).read(0, 8 if "late" in arm else 512)
        counts[arm] = int((read.weights > 0).sum())
        if "late" in arm:
            continue
        seen, heads, width, hidden, count = read.seen(), 2, 16, 32, len(read.tokens)
        matrices = 4 * hidden * hidden + 3 * hidden * config.model.width_of_ffn
        each = 2 * matrices * 32 + 4 * heads * width * seen.pairs() / count
        each += 2 * config.model.padded_vocabulary * hidden * (read.weights > 0).sum() / count
        # Those of a mix are expected from its shares, not counted.
        assert flops == pytest.approx(3 * each * 8 * lengths.total, rel=0.02 if "mix" in arm else 1e-4), arm
    assert counts["causal"] > 1.5 * counts["causal-c"] and counts["rc"] == counts["causal-c"]
    assert counts["rc"] < counts["mix"] < counts["causal"] and counts["rc"] < counts["rc+loss"]


def test_packed_pairs_are_scored_on_their_answers_alone_whatever_the_arm(pairs):
    torch.manual_seed(0)
    model = Transformer(ModelConfig(layers=1, hidden=32, heads=2, vocabulary=50, initial_std=0.3)).double()
    initialise(model, model.config, 1)
    stream = open_stream(pairs.run.data, "valid", Window(16, 16, 16), 0)
    for arm, recent in (("causal", 0), ("rc", 16)):
        config = arm_config(pairs, arm)
        saved = SavedModel(model.eval(), config, Standing(1, 8), Path("x"))
        keys = pairs.model_copy(update={"targets": 6})
        found = score(keys, saved, targets_window(keys, config), MAKERS)
        total = weight = 0.0
        for sample in range(6):  # each document by itself, on rows without neighbours
            read = stream.read(sample, 1)
            for first in np.unique(read.documents[0]):
                rows = np.flatnonzero(read.documents[0] == first)
                r = min(recent, max(0, int(read.recent_end[0, rows[0]]) - int(rows[0])))
                tokens = torch.as_tensor(read.tokens[0, rows[0] : rows[-1] + 2].astype(np.int64))[None]
                with torch.no_grad():
                    nll = model(tokens, slice(0, len(rows)), r).nll[0]
                total += float((nll * torch.as_tensor(read.weights[0, rows])).sum())
                weight += float(read.weights[0, rows].sum())
        assert found.nats == pytest.approx(total / weight, rel=1e-6), arm


def test_only_the_best_arms_of_each_kind_go_on_to_more_seeds(tmp_path):
    keys = comparison(folder=str(tmp_path), rates=[1.0], seeds=2, finals=1)
    campaign = Campaign(keys, MAKERS, lambda run: True)
    for number, arm in enumerate(ARMS):
        assert campaign.finals() == []
        with campaign.file.open("ab") as file:
            file.write(orjson.dumps(asdict(result(arm, 0, 2.0 - 0.01 * number))) + b"\n")
    assert [one.arm for one in campaign.finals()] == ["late-c+loss", "mix+loss"]
    with campaign.file.open("ab") as file:  # a loser with one lucky seed is not what the verdict speaks of
        file.write(orjson.dumps(asdict(result("rc", 1, 0.1))) + b"\n")
    assert verdict(campaign)[:2] == ("late-c+loss", "mix+loss")


def test_configurations_are_comparisons():
    for path in (ROOT / "configs" / "recipes").glob("*.yaml"):
        assert load(CompareConfig, path).arms


def test_the_command_trains_scores_and_goes_on(tmp_path):
    from support.scripts import python

    command = ["launch/compare.py", "--config", "configs/recipes/chase.yaml", f"folder={tmp_path}",
               "run.length=3 steps", "run.schedule.warmup=1 steps", "rates=[1.0]", "targets=32",
               "run.batch.size=4", "run.health.bad_steps=1", "run.health.backs=1"]  # fmt: skip
    said = python(*command, "seeds=1")
    assert "1: causal-c-lr1" in said and "One seed shows no difference" in said
    said = python(*command, "seeds=2", "--jobs", "2")  # side by side, each a process
    assert "n = 2 seeds" in said and (tmp_path / "runs" / "rc-lr1-w1steps-s1.log").exists()
    # A line that was written half, of a run whose checkpoints are gone: that run is made again. Rates with which the
    # model diverges are tries without a loss, and do not end the comparison.
    results = tmp_path / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-30])
    assert "n = 2 seeds" in python(*command, "seeds=2", "rates=[1.0,1e30]", "--jobs", "2")
    said = python(*command, "seeds=2", "rates=[1.0,1e30,1e32]")
    assert "n = 2 seeds" in said and "causal-c-lr1e+32-w1steps-s0 has no loss: steps 2" in said
    written = results.read_text().splitlines()
    lines = [json.loads(line) for line in written if line.endswith("}")]
    assert len(lines) == len(written) - 1
    assert [(line["arm"], line["seed"], line["rate"]) for line in lines if line["nats"] is None] == [
        (arm, 0, rate) for rate in (1e30, 1e32) for arm in ("causal-c", "rc")
    ]
    lines = [line for line in lines if line["nats"] is not None]
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
        report(Campaign(comparison(folder=str(tmp_path / "none")), MAKERS, lambda run: True))


def test_results_of_other_keys_or_data_are_never_taken_for_those_of_this_comparison(tmp_path, pairs):
    base = to_dict(pairs.run)

    def campaign(**keys):
        tree = {"folder": str(tmp_path / "one"), "arms": ["causal", "rc"], "run": base, **keys}
        return Campaign(build(CompareConfig, tree, "test"), MAKERS, lambda run: True)

    running = campaign().run()
    next(running)
    with pytest.raises(UserError, match="in use by process"):  # another process on the same folder
        next(campaign().run())
    running.close()
    # More arms, rates, seeds are the same comparison; a line of a result says its own.
    campaign(arms=["causal", "rc", "mix"], rates=[3.0], seeds=2, finals=1, warmups=["2 steps"])
    for change, said in (
        ({"length": "70 steps"}, "run.length: 60 steps there, 70 steps now"),
        ({"batch": {"size": 16}}, "run.batch.size: 8 there, 16 now"),
        ({"precision": "bf16"}, "run.precision"),
    ):
        with pytest.raises(UserError, match=said):
            campaign(run={**base, **change})
    for keys in ({"late": 0.5}, {"targets": 10}):
        with pytest.raises(UserError, match="other keys or data"):
            campaign(**keys)
    other = [{"path": str(write_pairs(tmp_path / "other", seed=1))}]  # the same keys with another corpus
    with pytest.raises(UserError, match="heldout"):
        campaign(run={**base, "data": {**base["data"], "valid": other}})
    (tmp_path / "one" / "comparison.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        campaign()
