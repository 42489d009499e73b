"""Windows that change in a run, a mix, a loss on R: every topology trains the same model and resumes exactly."""

import json

import numpy as np
import pytest
import torch
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

from megarc.config import build
from megarc.corpus.indexed.writer import IndexedWriter
from megarc.model import ModelConfig, Transformer, cost_of, initialise
from megarc.train import RunConfig, load_model, open_train
from megarc.window import Window

CAUSAL, SPLIT, LONG = Window.plain(16), Window.split(8, 8), Window(8, 16, 16)
RECENT = {"share": 0.5, "mask": 0.4, "weight": 0.5, "token": 24}
STAGES = [
    {"at": "0 samples", "recent": 0, "causal": 16},
    {"at": "16 samples", "recent": 8, "causal": 8},
    {"at": "4 steps", "recent": 8, "causal": 16},
]
RUNS = {
    # window, objective, documents, schedule
    "stages": {"window": {"stages": STAGES}, "objective": {"recent": RECENT},
               "schedule": {"kind": "wsd", "warmup": "1 steps", "decay": "256 tokens"}},
    "mix": {"window": {"recent": 8, "causal": 8, "mix": [{"share": 0.5, "recent": 0}]},
            "objective": {"recent": RECENT}, "documents": "isolate"},
}  # fmt: skip
MIXES = {
    1: [("z1", {"parallel__zero": 1})],
    2: [
        ("dp-z0", {"parallel__zero": 0}),
        ("dp-z2", {"parallel__zero": 2}),
        ("dp-z3", {"parallel__zero": 3}),
        ("tp", {"parallel__tensor": 2, "parallel__sequence": True}),
        ("pp", {"parallel__pipeline": 2}),
    ],
}
NAMES = [name for mixes in MIXES.values() for name, _ in mixes]


def job(folder, corpus, kind="stages", length="6 steps", **changes):
    keys = RUNS[kind]
    found = pretrain(folder, 1, 6, **{"parallel__zero": 1, **changes})
    tree = found["config"]
    data = {"train": [{"path": str(corpus)}], "valid": [{"path": str(corpus), "part": [0.5, 1.0]}]}
    tree |= {"length": length, "window": keys["window"], "objective": keys["objective"]}
    tree |= {"data": {**data, "documents": keys.get("documents", "cross")}}
    tree["schedule"] = keys.get("schedule", tree["schedule"])
    tree["model"]["vocabulary"] = 25
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("corpus") / "numbers"
    tokens = np.random.default_rng(0).integers(0, 24, 3000)
    with IndexedWriter(prefix, np.uint16) as writer:
        writer.add(tokens.astype(np.uint16), [700, 5, 1295, 1000])
        writer.finish()
    return prefix


@pytest.fixture(scope="module")
def runs(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("windows")
    pools = {1: [], 2: []}
    for kind in RUNS:
        pools[1].append(job(folder / f"{kind}-one", corpus, kind, parallel__zero=0))
        for world, mixes in MIXES.items():
            for name, changes in mixes:
                pools[world].append(job(folder / f"{kind}-{name}", corpus, kind, **changes))
    # Ended in each stage, and gone on; an adaptation of what the first stage left.
    for until in ("1 steps", "3 steps", "5 steps", "6 steps"):
        pools[1].append(job(folder / "resumed", corpus, until=until))
    start = {"start_from": str(folder / "resumed")}
    adapted = job(
        folder / "adapted", corpus, length="3 steps", **start, start_with={"moments": False, "step": False}
    )
    adapted["config"] |= {"window": {"recent": 8, "causal": 8}, "objective": {}}
    adapted["config"]["schedule"] = {"kind": "constant", "warmup": "2 steps"}
    pools[1].append(adapted)
    for world, jobs in pools.items():
        run_jobs(jobs, world, folder, timeout=900)
    return folder


@pytest.mark.parametrize("kind", list(RUNS))
@pytest.mark.parametrize("name", NAMES)
def test_is_the_same_run_on_every_topology(runs, kind, name):
    one, other = runs / f"{kind}-one", runs / f"{kind}-{name}"
    for number in ("train/nats_per_token", "train/gradient_norm", "heldout/nats_per_token"):
        ours, theirs = metrics(one, number), metrics(other, number)
        assert len(ours) >= 2 and torch.allclose(ours, theirs, rtol=1e-5), number
    there = full_state(other)
    for part, values in full_state(one).items():
        assert (values - there[part]).abs().max() / values.abs().max().clamp_min(1e-8) < 2e-4, part


def test_resumes_exactly_in_every_stage(runs):
    whole = full_state(runs / "stages-z1")
    for part, values in full_state(runs / "resumed").items():
        assert torch.equal(values, whole[part]), part


def test_tokens_flops_and_learning_rate_follow_the_stages(runs):
    lines = [json.loads(line) for line in (runs / "stages-one" / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "batch/samples" in line]
    windows = [CAUSAL] * 2 + [SPLIT] * 2 + [LONG] * 2
    assert [line["batch/predicted_tokens"] for line in lines] == [8 * window.stride for window in windows]
    assert [line["batch/processed_tokens"] for line in lines] == [8 * window.rows for window in windows]
    assert [line["predicted_tokens"] for line in lines] == [128, 256, 320, 384, 512, 640]
    # wsd: the last 256 predicted tokens are two steps of the last stage.
    rates = [line["train/learning_rate"] for line in lines]
    assert rates[:5] == [3e-3] * 5 and rates[5] < 2e-3
    model = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, qk_norm=True, vocabulary=25)
    for line, window in zip(lines, windows, strict=True):
        cost = cost_of(model, window)
        assert line["speed/mfu_exact_mask"] / line["speed/mfu_full_square"] == pytest.approx(
            cost.training_flops / cost.training_flops_full_square,
            rel=0.05 if window.recent else 1e-6,  # the head's rows of hidden tokens are work too
        )


def test_the_window_of_a_trained_model_is_that_of_its_stage(runs):
    assert load_model(runs / "stages-one").config.window.build() == LONG
    earlier = sorted((runs / "resumed" / "checkpoints").iterdir())
    found = {saved.standing.step: saved.config.window.build() for saved in map(load_model, earlier)}
    assert {step: window for step, window in found.items() if step in (1, 3, 5)} == {
        step: window for step, window in ((1, CAUSAL), (3, SPLIT), (5, LONG)) if step in found
    }


def test_adaptation_takes_the_weights_and_has_its_own_steps(runs):
    lines = [json.loads(line) for line in (runs / "adapted" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "batch/samples" in line] == [1, 2, 3]
    assert lines[0]["train/learning_rate"] == pytest.approx(1.5e-3)  # its own warm-up of two steps
    assert "): its weights\n" in (runs / "adapted" / "log.txt").read_text()
    first, scratch = metrics(runs / "adapted", "train/nats_per_token"), np.log(25)
    assert abs(float(first[0]) - scratch) > 1e-3  # not initial values


def test_a_hidden_token_is_known_to_no_row(corpus):
    """Another true token in its place changes no row's distribution; where it is shown it does."""
    config = build(RunConfig, job("unused", corpus)["config"], "test")
    stream = open_train(config)
    model = Transformer(ModelConfig(layers=2, hidden=32, heads=4, vocabulary=25, initial_std=0.3)).double()
    initialise(model, model.config, 1)
    batch = stream.read(16, 16)  # the second stage: R of 8
    assert batch.inputs is not None
    hidden = batch.inputs != batch.tokens[:, :-1]
    other = batch.tokens.copy()
    other[:, :-1][hidden] = (other[:, :-1][hidden] + 1) % 24

    def of(tokens, inputs):
        with torch.no_grad():
            inputs = torch.as_tensor(inputs).long()
            return model(torch.as_tensor(tokens).long(), slice(None), 8, inputs=inputs)

    one, two = of(batch.tokens, batch.inputs), of(other, batch.inputs)
    assert torch.equal(one.log_z, two.log_z)
    shown = of(other, other[:, :-1])
    chosen = torch.as_tensor(hidden.any(1))
    assert (shown.log_z[chosen] - one.log_z[chosen]).abs().max() > 1e-3
    # Only the rows before hidden tokens have another loss, since only their targets are others.
    differ = (one.nll != two.nll).numpy()
    assert np.array_equal(differ[:, :-1], hidden[:, 1:]) and not differ[:, -1].any()
    again = stream.read(16, 16).inputs
    assert np.array_equal(again, batch.inputs)


def test_off_hides_nothing(corpus):
    tree = job("unused", corpus)["config"]
    tree["objective"] = {}
    tree["window"] = {"recent": 8, "causal": 8}
    batch = open_train(build(RunConfig, tree, "test")).read(0, 8)
    assert batch.inputs is None and batch.weights is None
