"""Packed rows: nothing lost, nothing twice, R and loss where they belong, in any order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.config import build
from megarc.corpus import IndexedWriter
from megarc.corpus.indexed.manifest import write_manifest
from megarc.corpus.packing.assemble import manifest_of
from megarc.data import DataConfig, open_stream
from megarc.data.bin_packing import FITS
from megarc.data.document_pieces import pieces_of
from megarc.data.packed import PackedCorpus
from megarc.data.source import Facts
from megarc.errors import UserError
from megarc.interval import Intervals
from megarc.window import Window

WINDOW = Window(12, 8, 8)  # rows of 20, so 21 tokens
PACKINGS = sorted(FITS)


class Memory:
    """Documents as (question, answer) lengths; token t of the corpus is t + 1."""

    def __init__(self, documents: list[tuple[int, int]], divided: bool = True) -> None:
        self.lengths = np.asarray([q + a for q, a in documents], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.tokens = np.arange(1, int(self.lengths.sum()) + 1, dtype=np.int32)
        self.answers = np.asarray([q for q, _ in documents], dtype=np.uint32) if divided else None
        self.document_count, self.digest = len(documents), f"memory {documents} {divided}"

    def document_starts(self, numbers: Any) -> Any:
        return self.starts[numbers]


def packed(
    documents: list[tuple[int, int]], packing: str = "best_fit", window: Window = WINDOW, **more: Any
) -> Any:
    return PackedCorpus(Memory(documents, **more), window, Facts("m"), packing=packing)


DOCUMENTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=40)


def targets(source: Any) -> Counter[int]:
    """How often each token is predicted in an epoch."""
    many = source.read_many(np.arange(len(source)))
    return Counter(many.tokens[:, 1:][many.weights > 0].tolist())


@settings(max_examples=80, deadline=None)
@given(DOCUMENTS, st.sampled_from(PACKINGS))
def test_every_answer_is_predicted_once_and_nothing_else(
    documents: list[tuple[int, int]], packing: str
) -> None:
    corpus = Memory(documents)
    expected: Counter[int] = Counter()
    for start, (question, answer) in zip(corpus.starts.tolist(), documents, strict=True):
        kept = question if question + answer <= 21 else max(21 - answer, min(question, 10))
        said = min(answer, 21 - kept)
        first = start + question + (kept == 0)  # a token without any before it cannot be predicted
        expected.update(range(first + 1, start + question + said + 1))
    if not expected:
        with pytest.raises(UserError, match="has a token to predict"):
            packed(documents, packing)
        return
    source = packed(documents, packing)
    assert targets(source) == expected and set(expected.values()) == {1}
    size = len(source) * WINDOW.rows
    assert source.filling.unpredicted == pytest.approx(1 - len(expected) / size)
    tokens = source.read_many(np.arange(len(source))).tokens
    assert source.filling.padding == pytest.approx((tokens == 0).mean())
    assert source.filling.cropped == pytest.approx(1 - (tokens > 0).sum() / max(len(corpus.tokens), 1))


@settings(max_examples=80, deadline=None)
@given(DOCUMENTS, st.sampled_from(PACKINGS), st.sampled_from([0, 5, 12]))
def test_a_row_sees_its_document_and_r_is_its_question(
    documents: list[tuple[int, int]], packing: str, recent: int
) -> None:
    window = Window(recent, 20 - recent, 8)
    corpus = Memory(documents)
    try:
        source = packed(documents, packing, window)
    except UserError:
        return
    many = source.read_many(np.arange(len(source)))
    none = np.zeros(len(source), dtype=np.int32)
    seen = Intervals.of(20, none, many.documents, many.recent_end)
    mask = seen.allow(np.arange(20))
    document = np.searchsorted(corpus.starts + corpus.lengths, many.tokens[:, :-1] - 1, side="right")
    for sample in range(len(source)):
        for row in range(20):
            token, sees = int(many.tokens[sample, row]), np.flatnonzero(mask[sample, row])
            if token == 0:
                assert sees.tolist() == [row] and many.weights[sample, row] == 0
                continue
            assert (document[sample, sees] == document[sample, row]).all()
            assert (np.diff(many.tokens[sample, sees]) == 1).all()  # one run of its document
            if many.weights[sample, row]:  # it has not seen what it predicts
                assert many.tokens[sample, sees].max() == token
            number = int(document[sample, row])
            boundary = int(corpus.starts[number]) + documents[number][0]  # the last token of the question
            if token < boundary and recent == 12 and row - sees[0] < 12:
                first = int(many.tokens[sample, sees[0]])
                assert many.tokens[sample, sees].max() == min(boundary - 1, first + 11)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=30), st.sampled_from(PACKINGS))
def test_documents_without_answers_are_predicted_but_for_their_first_token(
    lengths: list[int], packing: str
) -> None:
    documents, window = [(length, 0) for length in lengths], Window.plain(20)
    corpus = Memory(documents, divided=False)
    expected = {
        t for s, n in zip(corpus.starts.tolist(), lengths, strict=True) for t in range(s + 2, s + n + 1)
    }
    if not expected:
        return
    found = targets(packed(documents, packing, window, divided=False))
    assert set(found) == expected and set(found.values()) == {1}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=200), st.sampled_from(PACKINGS))
def test_no_row_is_too_full_and_none_is_empty(sizes: list[int], packing: str) -> None:
    row = FITS[packing](np.asarray(sizes), 30)
    filled = np.bincount(row, weights=sizes)
    assert filled.max() <= 30 and filled.min() >= 1
    # What two rows hold would not fit into one: a row is opened only where no other has room.
    assert len(filled) == 1 or np.sort(filled)[:2].sum() > 30


def test_padding_stays_under_two_per_cent() -> None:
    """At n = 8 medians, best_fit; lengths as text has them (log-normal)."""
    chance = np.random.default_rng(0)
    for sigma in (0.5, 1.0, 1.5):
        lengths = np.exp(chance.normal(np.log(64), sigma, 20_000)).astype(np.int64).clip(2, 4000)
        rows = 8 * int(np.median(lengths))
        documents = [(int(n) // 2, int(n) - int(n) // 2) for n in lengths]
        filling = packed(documents, "best_fit", Window(rows // 2, rows // 2, 1)).filling
        assert filling.padding < 0.02, (sigma, str(filling))


def test_what_is_said_of_a_corpus() -> None:
    note = packed([(3, 50), (4, 4), (2, 0)]).facts.note
    assert "1 documents with nothing to predict" in note
    assert "1 answers are longer than a row and lose their ends (documents 0)" in note
    assert "% padding" in note and "% cropped" in note and "% unpredicted" in note
    with pytest.raises(UserError, match="does not say where answers begin"):
        packed([(9, 9)], divided=False)
    cut = pieces_of(*(np.asarray([value]) for value in (0, 100, 40)), 21)
    assert (cut.start, cut.length, cut.answer, cut.cropped) == ([30], [21], [10], 79)


@pytest.fixture
def corpora(tmp_path: Any) -> list[str]:
    """Two on disk."""
    prefixes = []
    chance = np.random.default_rng(3)
    for number in range(2):
        prefix = tmp_path / f"c{number}"
        with IndexedWriter(prefix, np.uint16) as writer:
            for _ in range(120):
                question, answer = chance.integers(1, 15, 2).tolist()
                writer.add(chance.integers(1, 60, question + answer), answers=[question])
            write_manifest(prefix, manifest_of(writer.finish(), prefix))
        prefixes.append(str(prefix))
    return prefixes


@pytest.mark.parametrize("packing", PACKINGS)
def test_order_blend_epochs_and_resume_are_those_of_any_source(corpora: list[str], packing: str) -> None:
    tree = {
        "train": [{"path": corpora[0], "weight": 3.0}, {"path": corpora[1], "part": (0.25, 1.0)}],
        "valid": [{"path": corpora[1], "part": (0.0, 0.25)}],
        "packing": packing,
    }
    config = build(DataConfig, tree, "test")
    stream = open_stream(config, "train", WINDOW, seed=5)
    sizes = [len(source) for source in stream.sources]
    whole = stream.read(0, 4 * max(sizes))
    assert whole.weights is not None and whole.weights.shape[1] == WINDOW.rows
    again = open_stream(config, "train", WINDOW, seed=5)
    for first in (0, 7, 60):  # cut anywhere, by anybody, opened anew: the same samples
        part = again.read(first, 5)
        for name in ("tokens", "weights", "documents", "recent_end"):
            assert (getattr(part, name) == getattr(whole, name)[first : first + 5]).all()
    # an epoch of a source reads each of its rows once
    places = stream._order.places(0, 4 * max(sizes))
    for source, size in enumerate(sizes):
        own = places.number[places.source == source][:size]
        assert len(own) < size or sorted(own.tolist()) == list(range(size))
    assert abs((places.source == 0).mean() - 0.75) < 0.02
    held_out = open_stream(config, "valid", WINDOW, seed=5)
    assert held_out.read(0, len(held_out)).documents is not None
    assert "packed by" in str(stream.describe(100)[0])
