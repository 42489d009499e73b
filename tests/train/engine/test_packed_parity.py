"""Packed questions and answers: R by document, loss rows by weight, on every kind of topology against one process."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

from megarc.corpus import IndexedWriter
from megarc.corpus.indexed.manifest import write_manifest
from megarc.corpus.packing.assemble import manifest_of
from megarc.data import open_stream
from megarc.errors import UserError
from megarc.interval import Intervals
from megarc.train import load_model
from megarc.train.loop.feed import to_tensors

ROOT = Path(__file__).parents[3]
STEPS = 4
MIXES = {
    1: {"z3": (3, {})},
    2: {
        "dp2-z0": (0, {}),
        "dp2-z2": (2, {"execution__recompute": "selective"}),
        "dp2-z3": (3, {}),
        "tp2-z1-sequence": (1, {"parallel__tensor": 2, "parallel__sequence": True}),
        "pp2": (1, {"parallel__pipeline": 2}),
    },
    4: {"tp2-pp2": (1, {"parallel__tensor": 2, "parallel__pipeline": 2})},
}
NAMES = [name for mixes in MIXES.values() for name in mixes]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    chance = np.random.default_rng(0)
    for part in ("train", "valid"):
        with IndexedWriter(folder / part, np.uint16) as writer:
            for _ in range(300):
                question, answer = chance.integers(1, 14, 2).tolist()
                writer.add(chance.integers(0, 40, question + answer), answers=[question])
            write_manifest(folder / part, manifest_of(writer.finish(), folder / part))
    data = {
        "train": [{"path": str(folder / "train")}],
        "valid": [{"path": str(folder / "valid")}],
        "packing": "best_fit",
    }
    model = {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "qk_norm": True, "vocabulary": 40}
    keys = {"data": data, "model": model, "checkpoint__every": "1 steps", "checkpoint__keep": 9}
    keys["validation__windows"] = 500  # all
    for world, mixes in MIXES.items():
        jobs = [pretrain(folder / name, zero, STEPS, **keys, **more) for name, (zero, more) in mixes.items()]
        if world == 1:  # two steps on one rank, the others on two
            jobs.append(pretrain(folder / "one", 0, STEPS, **keys))
            jobs.append(pretrain(folder / "resumed", 1, STEPS, until="2 steps", **keys))
        if world == 2:
            jobs.append(pretrain(folder / "resumed", 2, STEPS, **keys))
        run_jobs(jobs, world, folder, timeout=400)
    return folder


@pytest.mark.parametrize("mix", [*NAMES, "resumed"])
def test_equals_one_process(runs, mix):
    for number in ("train/nats_per_token", "train/gradient_norm", "heldout/nats_per_token"):
        one, other = metrics(runs / "one", number), metrics(runs / mix, number)
        if number.startswith("heldout"):  # scored where a run stops, too
            one, other = one[-1:], other[-1:]
        assert len(one) >= 1 and torch.allclose(one, other, rtol=1e-5), number
    there = full_state(runs / mix)
    for part, values in full_state(runs / "one").items():
        assert (values - there[part]).abs().max() < 2e-4 * values.abs().max().clamp_min(1e-8), part


def test_the_loss_is_that_of_documents_alone(runs):
    """Each document by itself, on rows without neighbours or padding: the loss of the second step."""
    saved = load_model(runs / "one" / "checkpoints" / "step-000000001")
    config, window = saved.config, saved.config.window.build()
    stream = open_stream(config.data, "train", window, config.seed)
    batch = stream.read(8, 8)
    total = weight = 0.0
    for sample in range(8):
        for first in np.unique(batch.documents[sample]):
            rows = np.flatnonzero(batch.documents[sample] == first)
            weights = torch.as_tensor(batch.weights[sample, rows])[None]
            recent = int(batch.recent_end[sample, rows[0]]) - int(rows[0])
            tokens = torch.as_tensor(batch.tokens[sample, rows[0] : rows[-1] + 2].astype(np.int64))[None]
            with torch.no_grad():
                loss = saved.model(tokens, slice(0, len(rows)), max(recent, 0))
            total += float((loss.nll * weights).sum())
            weight += float(weights.sum())
    assert isinstance(to_tensors(batch, torch.device("cpu")).seen, Intervals)
    assert metrics(runs / "one", "train/nats_per_token")[1].item() == pytest.approx(total / weight, rel=1e-5)


def test_evaluate_scores_the_answers(runs, tmp_path, monkeypatch, capsys):
    """As the run's own held-out loss; and with a causal R."""
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    evaluate = importlib.import_module("evaluate")
    command = ["evaluate", "--run", runs / "one", "--corpus", runs / "valid", "--answers", "--recent", "0"]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--json", str(tmp_path / "a.json")])
    assert evaluate.main() == 0
    found = json.loads((tmp_path / "a.json").read_text())[str(runs / "one")]
    assert found["24"] == pytest.approx(metrics(runs / "one", "heldout/nats_per_token")[-1].item(), rel=1e-5)
    assert found["0"] != found["24"] and "24 (its own)" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*map(str, command[:-1]), "40"])
    with pytest.raises(UserError, match="40 rows of R in rows of 40"):
        evaluate.main()


def test_flops_count_the_pairs_and_loss_rows_of_packed_rows(runs):
    """From the batches themselves: every allowed pair, every row with weight, whatever the ranks."""
    saved = load_model(runs / "one" / "checkpoints" / "step-000000001")
    config, window = saved.config, saved.config.window.build()
    batch = open_stream(config.data, "train", window, config.seed).read(8, 8)
    pairs = sum(int(end - begin) for begin, end in zip(*spans(batch), strict=True)) / 8
    rows, heads, width = float((batch.weights > 0).sum()) / 8, 4, 8
    hidden, layers, kv = 32, 2, 2
    matrices = layers * (2 * hidden * width * (heads + kv) + 3 * hidden * config.model.width_of_ffn)
    flops = 2 * matrices * window.rows + 2 * config.model.padded_vocabulary * hidden * rows
    flops += layers * 4 * heads * width * pairs
    for name in ("one", "dp2-z2", "pp2"):
        mfu, speed = (
            metrics(runs / name, f"speed/{what}")[1]
            for what in ("mfu_exact_mask", "processed_tokens_per_second")
        )
        ranks = 1 if name == "one" else 2
        assert (mfu / speed).item() * window.rows * 1e12 * ranks == pytest.approx(3 * flops, rel=1e-3), name


def spans(batch):
    """First key and the one behind the last, of every row, from its document and its R."""
    begins, ends = [], []
    for documents, behind in zip(batch.documents, batch.recent_end, strict=True):
        for row, document in enumerate(documents):
            begins.append(int(np.flatnonzero(documents == document)[0]))
            ends.append(max(int(behind[row]), row + 1))
    return begins, ends
