"""Held-out losses of several sources: each scored, each named, and of the training data's tokenizer."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.runs import config

from megarc.config import build
from megarc.corpus import IndexedWriter, make_manifest, write_manifest
from megarc.corpus.indexed.manifest import TokenizerFacts
from megarc.errors import UserError
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.train import RunConfig, pretrain
from megarc.train.metrics import heldout_loss
from megarc.train.metrics.heldout_loss import share_out, windows_at_once

VOCABULARY = 100
BYTES = {"train": 4.0, "valid/wiki": 3.0, "valid/code": 2.0}


@given(windows=st.integers(1, 300), sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_windows_are_shared_out(windows, sizes):
    counts = share_out(windows, sizes)
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))
    assert sum(counts) == max(min(windows, sum(sizes)), len(sizes))
    # Whoever got fewer than another has no more, but for a rest of one.
    assert all(count == size or count >= max(counts) - 1 for count, size in zip(counts, sizes, strict=True))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for number, (name, bytes_per_token) in enumerate(BYTES.items()):
        corpus(folder / name, number, "a", text_bytes=int(2000 * bytes_per_token))
    corpus(folder / "valid" / "other", 3, "b")
    corpus(folder / "valid" / "larger", 4, None, vocabulary=VOCABULARY + 1)
    return folder


def corpus(prefix, seed, tokenizer, *, vocabulary=VOCABULARY, **facts):
    with IndexedWriter(prefix, np.uint16) as writer:
        # Each of another range, so that their losses differ.
        writer.add(np.random.default_rng(seed).integers(0, 20 * (seed + 1), 2000) % VOCABULARY)
        writer.finish()
    made = TokenizerFacts(kind="bytes", digest=tokenizer or "", vocabulary_size=vocabulary)
    write_manifest(prefix, make_manifest(prefix, quiet=True).model_copy(update={"tokenizer": made, **facts}))


@pytest.fixture(scope="module")
def losses(text, tmp_path_factory):
    """Of runs with one held-out source and with two; each two steps on one rank."""
    folder, groups = tmp_path_factory.mktemp("runs"), connect(meet(ALONE), "cpu")

    def train(name, windows, *valid, train=("train",)):
        tree = config(folder / name, 1, 2, validation__every="2 steps")
        tree["validation"]["windows"] = windows
        sources = {"train": train, "valid": valid}
        tree["data"] = {part: [{"path": str(text / one)} for one in names] for part, names in sources.items()}
        pretrain(build(RunConfig, tree, "test"), groups)
        lines = (folder / name / "metrics.jsonl").read_text().splitlines()
        return next(line for line in map(json.loads, lines) if "heldout/nats_per_token" in line)

    yield train
    disconnect()


@given(
    micro=st.integers(1, 64),
    layers=st.integers(1, 40),
    rows=st.integers(2, 4096),
    windows=st.integers(1, 300),
    keys=st.sampled_from(
        [{}, {"parallel__pipeline": 2}, {"execution__compile": True}, {"execution__recompute": "full"}]
    ),
)
def test_as_many_windows_at_once_as_take_no_more_memory_than_training(micro, layers, rows, windows, keys):
    tree = config("run", 1, 2, batch__size=64, **keys)
    one = build(RunConfig, tree, "test")
    one = one.model_copy(
        update={
            "batch": one.batch.model_copy(update={"micro": micro}),
            "model": one.model.model_copy(update={"layers": layers}),
        }
    )
    size = windows_at_once(one, rows, windows)
    if keys:
        assert size == micro
        return
    assert 1 <= size <= micro * layers and size <= max(windows, 1)
    assert size <= micro or size * rows <= 2048


def test_the_losses_are_those_of_single_micro_batches(losses, monkeypatch):
    """11 windows, 2 a micro-batch: the last pass has fewer, in either way."""
    together = losses("together", 11, "valid/code", "valid/wiki")
    monkeypatch.setattr(heldout_loss, "_ROWS", 1)
    singly = losses("singly", 11, "valid/code", "valid/wiki")
    for name in (name for name in together if name.startswith("heldout/")):
        assert together[name] == pytest.approx(singly[name], rel=1e-6), name


def test_each_is_scored_as_if_it_were_alone_and_named(losses):
    wiki, code = losses("wiki", 5, "valid/wiki"), losses("code", 4, "valid/code")
    both = losses("both", 9, "valid/code", "valid/wiki")
    for name, alone in (("wiki", wiki), ("code", code)):
        assert f"heldout/{name}/nats_per_token" not in alone
        for unit in ("nats_per_token", "bits_per_token", "bits_per_byte", "accuracy"):
            assert both[f"heldout/{name}/{unit}"] == pytest.approx(alone[f"heldout/{unit}"], rel=1e-6), unit
        byte = both[f"heldout/{name}/bits_per_token"] / BYTES[f"valid/{name}"]
        assert both[f"heldout/{name}/bits_per_byte"] == pytest.approx(byte)
    nats = (4 * code["heldout/nats_per_token"] + 5 * wiki["heldout/nats_per_token"]) / 9
    assert both["heldout/nats_per_token"] == pytest.approx(nats, rel=1e-6)
    a_byte = both["heldout/bits_per_token"] / ((4 * 2.0 + 5 * 3.0) / 9)
    assert both["heldout/bits_per_byte"] == pytest.approx(a_byte)


def test_text_of_another_tokenizer_is_refused_before_anything_is_built(losses):
    with pytest.raises(UserError, match=r"valid/other and .*train were made with different tokenizers"):
        losses("other", 4, "valid/other")
    with pytest.raises(UserError, match=r"valid/other and .*train were made with different tokenizers"):
        losses("blended", 4, "valid/wiki", train=("train", "valid/other"))
    with pytest.raises(
        UserError, match="larger has a vocabulary of 101, the data that is trained on one of 100"
    ):
        losses("larger", 4, "valid/larger")
