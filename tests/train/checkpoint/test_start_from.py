"""A run that begins from another's checkpoint: its place in the data, its counts, what it takes along."""

import json
import logging
import shutil
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.runs import config, full_state

from megarc.config import build, to_dict
from megarc.corpus import IndexedWriter
from megarc.data import open_stream
from megarc.errors import UserError
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.train import Observer, RunConfig, pretrain
from megarc.train.checkpoint import Checkpoint, Standing, latest
from megarc.train.checkpoint.resume import _check_same_data
from megarc.train.checkpoint.start_from import _check_scales, standing_from

DOCUMENTS = 1000


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Three corpora; in corpus j token i is j * 20,000 + i."""
    folder = tmp_path_factory.mktemp("text")
    for number, (name, tokens) in enumerate({"one": 20_000, "two": 10_000, "new": 400}.items()):
        with IndexedWriter(folder / name, np.uint16) as writer:
            begin = number * 20_000
            values = np.arange(begin, begin + tokens, dtype=np.uint16)
            writer.add(values, np.full(DOCUMENTS, tokens // DOCUMENTS) if tokens >= DOCUMENTS else None)
            writer.finish()
    return folder


def keys(text, **changes):
    """Windows of 2 rows and 1 prediction: many, on a small corpus; a dotted name is one key of ``data`` and so on."""
    sources = [{"path": str(text / "one"), "weight": 9}, {"path": str(text / "two"), "weight": 1}]
    tree = {"window": {"recent": 1, "causal": 1}, "data": {"train": sources}, "model": {"vocabulary": 61_000}}
    for dotted, value in changes.items():
        *group, name = dotted.split("__")
        (tree[group[0]] if group else tree)[name] = value
    return build(RunConfig, tree, "test")


def stream_of(configuration, phase=0):
    window = configuration.window.build()
    return open_stream(configuration.data, "train", window, configuration.seed).in_phase(phase)


def trained(configuration, samples):
    """Where a run stands after ``samples``, and the numbers of the windows of the first corpus that it read."""
    stream = stream_of(configuration)
    return Standing(samples // 10, samples, order=stream.order, sources=stream.digests), first_of(
        stream, 0, samples
    )


def first_of(stream, begin, count):
    tokens = stream.read(begin, count).tokens[:, 0]
    return tokens[tokens < 20_000]


OTHER_ORDERS = {
    "weights": lambda text: {"data__train": [{"path": str(text / "one")}, {"path": str(text / "two")}]},
    "a new corpus": lambda text: {"data__train": [{"path": str(text / "one")}, {"path": str(text / "new")}]},
    "part": lambda text: {"data__train": [{"path": str(text / "one"), "part": [0, 0.9]}]},
    "blend unit": lambda text: {"data__blend": "epochs"},
    "locality": lambda text: {"data__locality": {"block": 4, "mixed": 8}},
    "seed": lambda text: {"seed": 1},
    "stride": lambda text: {"window": {"recent": 0, "causal": 2}},
    "rows": lambda text: {"window": {"recent": 2, "causal": 1}},
}


@pytest.mark.parametrize("what", OTHER_ORDERS)
def test_another_order_is_a_new_phase_from_its_start(text, what):
    """No more of what comes next was read before than chance has it: 4,500 of 20,000 windows."""
    old, new = keys(text), keys(text, **OTHER_ORDERS[what](text))
    there, read = trained(old, 5000)
    standing = standing_from(there, new, stream_of(new), to_dict(old))
    assert standing.phase == 1 and standing.begin == standing.samples
    begins = first_of(stream_of(new, standing.phase), 0, 2000)
    again = float(np.isin(begins, read).mean())
    assert abs(again - 0.225) < 0.05


def test_the_fault_that_this_is_about(text):
    """The place carried into the new blend: 8 of 10 windows of the first corpus would come again."""
    old, new = keys(text), keys(text, **OTHER_ORDERS["weights"](text))
    _, read = trained(old, 10_000)
    assert np.isin(first_of(stream_of(new), 10_000, 8000), read).all()


SAME_ORDERS = {
    "nothing": {},
    "recent": {"window": {"recent": 0, "causal": 2, "stride": 1}},
    "documents": {"data__documents": "isolate"},
    "short recent": {"data__short_recent": 0.5},
}


@pytest.mark.parametrize("what", SAME_ORDERS)
@pytest.mark.parametrize("step", [True, False])
def test_in_the_same_order_it_goes_on_behind_what_was_read(text, what, step):
    old = keys(text)
    new = keys(text, start_with={"step": step}, **SAME_ORDERS[what])
    there, read = trained(old, 5000)
    there = replace(there, skipped=[[5002, 5005]])
    standing = standing_from(there, new, stream_of(new), to_dict(old))
    assert (standing.phase, standing.skipped) == (0, [[5002, 5005]])
    assert standing.samples - standing.begin == 5000
    assert (standing.step, standing.samples) == ((500, 5000) if step else (0, 0))
    assert not np.isin(first_of(stream_of(new, standing.phase), 5000, 2000), read).any()


def test_tokens_are_counted_on_in_windows_of_another_kind(text):
    old, new = keys(text), keys(text, window={"recent": 4, "causal": 12, "stride": 7})
    there = replace(trained(old, 5000)[0], more_predicted=3, more_processed=5)
    standing = standing_from(there, new, stream_of(new), to_dict(old))
    assert standing.samples * 7 + standing.more_predicted == 5000 * 1 + 3
    assert standing.samples * 16 + standing.more_processed == 5000 * 2 + 5
    assert 0 <= standing.more_predicted < 7


def test_a_run_of_an_earlier_version_says_that_its_small_sources_are_reordered(text, tmp_path, caplog):
    found = Checkpoint(
        tmp_path, {"standing": {"step": 1, "samples": 8, "sources": stream_of(keys(text)).digests}}
    )
    _check_same_data(found, stream_of(keys(text)))
    assert not caplog.records
    few = [{"path": str(text / "new"), "windows": 31}]
    stream = stream_of(keys(text, data__train=few))
    found.manifest["standing"]["sources"] = stream.digests
    _check_same_data(found, stream)
    assert "new [31 windows] go on in the new one" in caplog.text
    caplog.clear()
    found.manifest["standing"]["order"] = stream.order
    _check_same_data(found, stream)
    assert not caplog.records


# ---- real runs, on one rank


class Tape(Observer):
    """The samples of each step, as the order numbers them."""

    def __init__(self):
        self.samples = []

    def before_step(self, engine, moment, micro_batches):
        self.samples.append([int(number) for batch in micro_batches for number in batch.samples])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, text):
    """A trunk of 4 steps of 8 samples, and what begins from it."""
    folder = tmp_path_factory.mktemp("origin")
    groups = connect(meet(ALONE), "cpu")
    logger = logging.getLogger("megarc")
    before = logger.level
    logger.setLevel(logging.INFO)
    tapes, errors = {}, {}

    def train(name, length, **changes):
        tree = config(folder / name, 1, length, model__vocabulary=61_000, **changes)
        tree["data"] = {"train": [{"path": str(text / "one")}], **changes.get("data", {})}
        tapes[name] = Tape()
        pretrain(build(RunConfig, tree, "test"), groups, watch=[tapes[name]])

    train("trunk", 4)
    start = {"start_from": str(folder / "trunk")}
    two = {"data": {"train": [{"path": str(text / "two")}]}}
    train("same", 6, **start)
    train("text", 6, **start, **two)
    train("window", 6, **start, window={"recent": 24, "causal": 16, "stride": 8})
    anew = {"start_with": {"step": False}}
    train("anew", 4, **start, **two, **anew)
    train("anew in two", 2, **start, **two, **anew)
    shutil.move(folder / "trunk", folder / "elsewhere")  # what began from it needs it no more
    train("anew in two", 4, **start, **two, **anew)
    shutil.move(folder / "elsewhere", folder / "trunk")
    train("weights", 2, **start, start_with={"step": False, "moments": False})
    for name, length, until in (("over", 4, None), ("over until", 9, "3 steps")):
        with pytest.raises(UserError) as error:
            train(name, length, **start, until=until)
        errors[name] = str(error.value)
    yield folder, tapes, errors
    logger.setLevel(before)
    disconnect()


def said(folder, name):
    return (folder / name / "log.txt").read_text()


def standing_of(folder, name):
    return latest(folder / name / "checkpoints").standing


def test_the_data_go_on_or_begin_a_phase_and_it_is_said(runs):
    folder, tapes, _ = runs
    assert [step[0] for step in tapes["same"].samples] == [32, 40]
    assert "data: continues in the same order at sample 32" in said(folder, "same")
    assert [step[0] for step in tapes["text"].samples] == [0, 8]
    assert "data: new phase, begins at 0; another order, by data.train" in said(folder, "text")
    assert "data: new phase, begins at 0; another order, by window.stride" in said(folder, "window")


def test_counts_go_on(runs):
    """Each of 8 windows a step, of 16 predicted and 40 processed tokens; then of 8 and 40."""
    folder, *_ = runs
    for name, predicted in (("text", [640, 768]), ("window", [576, 640])):
        lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        lines = [line for line in lines if "train/nats_per_token" in line]
        assert [line["step"] for line in lines] == [5, 6]
        assert [line["predicted_tokens"] for line in lines] == predicted
        assert [line["processed_tokens"] for line in lines] == [1600, 1920]


def test_what_is_taken_along(runs):
    folder, tapes, _ = runs
    assert (standing_of(folder, "text").step, standing_of(folder, "text").updates) == (6, 6)
    assert (standing_of(folder, "anew").step, standing_of(folder, "anew").updates) == (4, 8)
    assert (standing_of(folder, "weights").step, standing_of(folder, "weights").updates) == (2, 2)
    assert [step[0] for step in tapes["weights"].samples] == [32, 40]
    assert "(step 4): its weights\n" in said(folder, "weights")
    there, trunk = full_state(folder / "weights"), full_state(folder / "trunk")
    name = "blocks.0.attention.out.weight"
    assert (
        there[f"{name}/master"] - trunk[f"{name}/master"]
    ).abs().max() < 3 * 3e-3  # two steps at a rate of 3e-3
    # A second moment that began at 0 has seen two gradients; that of the trunk's four would be larger.
    assert (there[f"{name}/exp_avg_sq"] < trunk[f"{name}/exp_avg_sq"] + 1e-12).float().mean() > 0.5


def test_a_run_that_began_from_another_is_resumed_bit_for_bit(runs):
    folder, tapes, _ = runs
    assert [step[0] for step in tapes["anew in two"].samples] == [16, 24]
    assert standing_of(folder, "anew in two") == standing_of(folder, "anew")
    whole = full_state(folder / "anew")
    for part, values in full_state(folder / "anew in two").items():
        assert torch.equal(values, whole[part]), part


def test_a_run_that_would_be_over_at_once_says_so(runs):
    _, _, errors = runs
    for name, end in (("over", 4), ("over until", 3)):
        assert f"stands at step 4, and this run ends at step {end}: there is nothing to train" in errors[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parametrization": "mup", "base_hidden": 64}, r"1.0, 1.0\), and this run's: \(1.0, 0.5, 1.0\)"),
        ({"heads": 8}, "head_dim: 32, and this run's: 16"),
        ({"initial_std": 0.1}, None),
        ({"parametrization": "mup", "base_hidden": 128}, None),  # at its base it is the standard model
    ],
)  # fmt: skip
def test_the_same_weights_under_other_scales_are_refused(text, changes, message):
    saved = SimpleNamespace(folder="there", manifest={"config": to_dict(keys(text))})
    run = keys(text, model={"vocabulary": 61_000, **changes})
    with pytest.raises(UserError, match=message) if message else nullcontext():
        _check_scales(saved, run)


def test_tables_of_crf_are_read_by_the_initial_std(text):
    saved = SimpleNamespace(folder="there", manifest={"config": to_dict(keys(text, model={"mixers": "crf"}))})
    with pytest.raises(
        UserError, match=r"initial_std, by which crf divides its tables: 0.02, and this run's: 0.1"
    ):
        _check_scales(saved, keys(text, model={"mixers": "crf", "initial_std": 0.1}))
    _check_scales(saved, keys(text, model={"mixers": "crf"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": "sigmoid"}, "scores softmax there and sigmoid here"),
        (
            {"normalised": False, "scale": 2.0},
            "normalised True there and False here, scale 1.0 there and 2.0 here",
        ),
        ({"active": 1, "balance": "loss"}, None),
    ],
)
def test_the_same_experts_under_other_weights_are_refused(text, changes, message):
    saved = SimpleNamespace(
        folder="there", manifest={"config": to_dict(keys(text, model={"experts": {"count": 4}}))}
    )
    run = keys(text, model={"experts": {"count": 4, **changes}})
    with pytest.raises(UserError, match=message) if message else nullcontext():
        _check_scales(saved, run)
