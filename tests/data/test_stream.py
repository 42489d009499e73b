from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from megarc.data.order import Sequential, Shuffled
from megarc.data.short_recent import ShortRecent
from megarc.data.source import Facts, Sample
from megarc.data.stream import Stream
from megarc.data.windows import StridedCorpus
from megarc.errors import UserError
from megarc.interval import Intervals
from megarc.train.engine import to_tensors
from megarc.window import Window

WINDOW = Window(6, 6, 4)
Make = Callable[..., Any]


class Weighted:
    """A task: token k everywhere, weights, fewer rows of R at even k."""

    digest, facts = "task", Facts("task", vocabulary=2000)

    def __len__(self) -> int:
        return 1000

    def read(self, k: int) -> Sample:
        weights = np.full(4, 0.5, dtype=np.float32)
        return Sample(np.full(13, k), weights, recent=2 if k % 2 == 0 else None)


def blended(memory: Make, **changed: Any) -> Stream:
    corpus = StridedCorpus(memory(5000, (0, 100)), WINDOW, Facts("c", 5000, 2, 4.0, 100, "t"), isolate=True)
    sources = [corpus, Weighted()]
    sizes, digests = [len(source) for source in sources], [source.digest for source in sources]
    order = Shuffled(sizes, digests, [32_768, 32_768], seed=0)
    return Stream(sources, order, WINDOW, shares=[0.5, 0.5], **changed)


def test_a_batch_of_two_kinds_of_source(memory: Make) -> None:
    stream = blended(memory)
    batch = stream.read(1000, 64)
    assert batch.tokens.dtype == np.int32
    assert batch.samples.tolist() == list(range(1000, 1064))
    task = (batch.tokens == batch.tokens[:, :1]).all(axis=1)
    assert task.sum() == 32
    assert batch.weights is not None
    assert (batch.weights[task] == 0.5).all()
    assert (batch.weights[~task] == 1).all()
    assert (batch.recent[~task] == 6).all()
    assert set(batch.recent[task].tolist()) == {2, 6}
    assert (batch.recent[task] == np.where(batch.tokens[task, 0] % 2 == 0, 2, 6)).all()
    assert batch.documents is not None
    assert batch.documents.shape == (64, 12)
    assert (np.diff(batch.tokens[~task], axis=1) == 1).all()


def test_every_batch_has_the_same_fields_whatever_is_in_it(memory: Make) -> None:
    stream = blended(memory)
    for k in range(20):
        batch = stream.read(k, 1)
        assert batch.weights is not None
        assert batch.documents is not None
    plain = Stream([StridedCorpus(memory(500), WINDOW, Facts("c"))], Sequential([10]), WINDOW, shares=[1.0])
    assert plain.read(0, 3).weights is None
    assert plain.read(0, 3).documents is None


class ByRow:
    """Weights of all rows, 0 where a row bears no loss, and an R by document."""

    digest, facts = "by-row", Facts("by row")

    def __len__(self) -> int:
        return 10

    def read(self, k: int) -> Sample:
        rows = np.arange(WINDOW.rows)
        return Sample(
            np.full(WINDOW.tokens, k),
            (rows % 3 == 0).astype(np.float32),
            documents=(rows >= 5).astype(np.int32),
            recent_end=np.where(rows >= 5, 9, 2).astype(np.int32),
        )


def test_weights_of_all_rows_and_of_the_loss_rows_go_into_one_batch(memory: Make) -> None:
    plain = StridedCorpus(memory(500), WINDOW, Facts("c"))
    batch = Stream([ByRow(), plain], Sequential([10, 10]), WINDOW, shares=[0.5, 0.5]).read(9, 2)
    rows = np.arange(WINDOW.rows)
    assert batch.weights is not None
    # rows of an R see their target: no loss there, whatever a source says
    inside = rows < np.where(rows < 5, 2, 9)
    assert (batch.weights == [(rows % 3 == 0) & ~inside, rows >= WINDOW.rows - WINDOW.stride]).all()
    seen = batch.seen()
    assert isinstance(seen, Intervals)
    assert (seen.begin[0] == np.where(rows < 5, 0, 5)).all()
    assert (seen.end[0] == np.maximum(rows + 1, np.where(rows < 5, 2, 9))).all()
    assert (seen.begin[1] == 0).all() and (seen.end[1] == np.maximum(rows + 1, WINDOW.recent)).all()
    # to_tensors: the head's rows are those with weight
    micro = to_tensors(batch, torch.device("cpu"))
    assert micro.rows is not None and micro.weights is not None
    assert (micro.rows.numpy() == np.nonzero(batch.weights.flatten())[0]).all() and (micro.weights == 1).all()


def test_batches_do_not_depend_on_how_they_are_cut(memory: Make) -> None:
    stream = blended(memory, short_recent=ShortRecent(0.3, seed=1, phase=0))
    whole = stream.read(4090, 30)
    for k in range(30):
        one = blended(memory, short_recent=ShortRecent(0.3, seed=1, phase=0)).read(4090 + k, 1)
        for field in ("tokens", "recent", "weights", "documents", "samples"):
            assert (getattr(one, field)[0] == getattr(whole, field)[k]).all()


def test_tokens_go_where_they_are_wanted(memory: Make) -> None:
    out = np.zeros((5, 13), dtype=np.int32)
    batch = blended(memory).read(7, 5, out)
    assert batch.tokens is out
    assert (out == blended(memory).read(7, 5).tokens).all()


def test_a_share_of_samples_has_a_shorter_recent() -> None:
    recent = ShortRecent(0.25, seed=3, phase=0).draw(np.arange(40_000), 8)
    short = recent < 8
    assert abs(short.mean() - 0.25) < 0.01
    assert np.abs(np.bincount(recent[short], minlength=8) / short.sum() - 1 / 8).max() < 0.01
    assert (ShortRecent(0.25, seed=3, phase=1).draw(np.arange(40_000), 8) != recent).any()


def test_outside_is_an_error(memory: Make) -> None:
    held_out = Stream([StridedCorpus(memory(52), WINDOW, Facts("c"))], Sequential([10]), WINDOW, shares=[1.0])
    assert len(held_out) == 10
    assert (held_out.read(0, 10).tokens[:, 0] == np.arange(0, 40, 4)).all()
    for first, count in ((-1, 1), (0, 0), (5, 6)):
        with pytest.raises(IndexError):
            held_out.read(first, count)


def test_what_it_tells(memory: Make) -> None:
    stream = blended(memory, most_epochs=4)
    assert stream.vocabulary == 2000
    assert stream.tokenizer_digest == "t"
    assert stream.bytes_per_token is None
    corpus, task = stream.describe(20_000)
    assert (corpus.windows, corpus.share, corpus.epochs) == (1247, 0.5, 10_000 / 1247)
    assert "repeated 8.0 times" in corpus.warning
    assert "50 % of the samples" in str(corpus)
    assert task.epochs == 10
    assert not stream.describe(2000)[0].warning


def test_sources_of_different_tokenizers_are_refused(memory: Make) -> None:
    sources = [
        StridedCorpus(memory(500, digest=name), WINDOW, Facts(name, tokenizer_digest=name)) for name in "ab"
    ]
    stream = Stream(sources, Sequential([10, 10]), WINDOW, shares=[0.5, 0.5])
    with pytest.raises(UserError, match="b and a were made with different tokenizers"):
        _ = stream.tokenizer_digest


def test_a_source_made_for_another_window_is_refused(memory: Make) -> None:
    source = StridedCorpus(memory(500), Window(6, 7, 4), Facts("c"))
    with pytest.raises(ValueError, match=r"c gives tokens of shape \(14,\)"):
        Stream([source], Sequential([10]), WINDOW, shares=[1.0])
