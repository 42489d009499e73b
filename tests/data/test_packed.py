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
from megarc.data import DataConfig, Mixed, RecentLossConfig, Shapes, open_stream
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


def pairs_of(corpora: list[str], **keys: Any) -> DataConfig:
    tree = {"train": [{"path": path} for path in corpora], "packing": "best_fit", **keys}
    return build(DataConfig, tree, "test")


def limited(batch: Any, recent: Any) -> Any:
    """The ends of R where no document has more than ``recent`` rows of it."""
    begin = Intervals.of(20, np.zeros(len(batch.tokens), dtype=np.int32), batch.documents).begin
    return np.minimum(batch.recent_end, begin + np.broadcast_to(recent, len(batch.tokens))[:, None])


def test_a_causal_run_reads_the_same_rows_in_the_same_order(corpora: list[str]) -> None:
    """``window.recent=0`` is the switch: the same documents share a row, and the k-th row is the same."""
    rows = [
        open_stream(pairs_of(corpora), "train", Window(recent, 20 - recent, 1), seed=5).read(0, 50)
        for recent in (0, 5, 12)
    ]
    for other in rows[1:]:
        for name in ("tokens", "documents", "weights"):
            assert (getattr(rows[0], name) == getattr(other, name)).all(), name
    for recent, read in zip((0, 5, 12), rows, strict=True):
        assert (np.maximum(read.recent_end, np.arange(20) + 1)
                == np.maximum(limited(rows[2], recent), np.arange(20) + 1)).all()  # fmt: skip
    assert (
        open_stream(pairs_of(corpora), "train", WINDOW, seed=5).order
        == open_stream(pairs_of(corpora), "train", Window(5, 15, 8), seed=5).order
    )


@pytest.mark.parametrize("recent", [0, 5, 12])
def test_a_weight_of_questions_predicts_them_where_no_r_covers_them(corpora: list[str], recent: int) -> None:
    window = Window(recent, 20 - recent, 1)
    plain = open_stream(pairs_of(corpora), "train", window, seed=5).read(0, 50)
    read = open_stream(pairs_of(corpora, question_weight=0.25), "train", window, seed=5).read(0, 50)
    row = np.arange(20)
    assert (read.weights[plain.weights == 1] == 1).all()
    more = (read.weights > 0) & (plain.weights == 0)
    assert (read.weights[more] == 0.25).all() and not (more & (row < plain.recent_end)).any()
    # rows behind R whose next token is of their own document, but for those that predict the answer already
    free = (plain.documents[:, 1:] == plain.documents[:, :-1]) & (row[:-1] >= plain.recent_end[:, :-1])
    assert (more[:, :-1] == (free & (plain.weights[:, :-1] == 0))).all() and more.any()


@pytest.mark.parametrize("recent", [0, 12])
def test_weights_of_segments_hold_from_a_mark_to_the_next(corpora: list[str], recent: int) -> None:
    """Against a walk from token to token. Rows of R bear no loss whatever their segment; held-out rows keep theirs."""
    marks = {"7": 0.5, "30": 2.0, "31": 0.0}
    window, weighed = Window(recent, 20 - recent, 1), {int(mark): weight for mark, weight in marks.items()}
    plain = open_stream(pairs_of(corpora, question_weight=0.25), "train", window, seed=5).read(0, 50)
    valid = [{"path": corpora[1]}]
    unweighed = pairs_of(corpora, valid=valid)
    config = pairs_of(corpora, question_weight=0.25, segment_weights=marks, valid=valid)
    read = open_stream(config, "train", window, seed=5).read(0, 50)
    expected = plain.weights.copy()
    for sample, tokens in enumerate(plain.tokens.tolist()):
        inside: float | None = None
        for row in range(20):
            if row == 0 or plain.documents[sample, row] != plain.documents[sample, row - 1]:
                inside = weighed.get(tokens[row])
            inside = weighed.get(tokens[row + 1], inside)
            if plain.weights[sample, row] and inside is not None:
                expected[sample, row] = inside
    assert (read.weights == expected).all() and set(weighed.values()) <= set(read.weights.ravel().tolist())
    held_out = [open_stream(one, "valid", window, seed=5).read(0, 9).weights for one in (config, unweighed)]
    assert (held_out[0] == held_out[1]).all()


@pytest.mark.parametrize(
    ("marks", "said"),
    [({"<spare1>": 0.3}, "does not reserve"), ({"7": 1.0, "07": 2.0}, "names a token twice")],
)
def test_marks_that_are_none(corpora: list[str], marks: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_stream(pairs_of(corpora, segment_weights=marks), "train", WINDOW, seed=5)


def test_windows_that_change_keep_the_rows(corpora: list[str]) -> None:
    """Stages and mixes of packed rows: the same rows in the same order; only R, and with it the loss, changes."""
    config = pairs_of(corpora, question_weight=1.0)
    whole = open_stream(config, "train", WINDOW, seed=5).read(0, 60)
    causal = open_stream(config, "train", Window.plain(20), seed=5).read(0, 60)
    staged = Shapes.packed([(0, Window.plain(20)), (24, Window(5, 15, 5)), (40, WINDOW)])
    stream = open_stream(config, "train", WINDOW, seed=5, shapes=staged)
    for first, count, recent in ((0, 24, 0), (24, 16, 5), (40, 20, 12)):
        read, part = stream.read(first, count), slice(first, first + count)
        ends = limited(whole, recent)[part]
        assert (read.tokens == whole.tokens[part]).all() and (read.recent_end == ends).all()
        assert (read.weights == np.where(np.arange(20) < ends, 0, causal.weights[part])).all()
    mixed = open_stream(
        config, "train", WINDOW, seed=5, shapes=Shapes.packed([(0, WINDOW)], [Mixed(0.5, 0)])
    ).read(0, 60)
    assert set(mixed.recent.tolist()) == {0, 12} and (mixed.tokens == whole.tokens).all()
    assert (mixed.recent_end == limited(whole, mixed.recent)).all()
    assert (mixed.weights[mixed.recent == 0] == causal.weights[mixed.recent == 0]).all()
    with pytest.raises(ValueError, match="one length"):
        Shapes.packed([(0, Window.plain(24)), (9, WINDOW)])


def test_hidden_tokens_lie_in_r_and_the_row_before_predicts_them(corpora: list[str]) -> None:
    hide = build(RecentLossConfig, {"share": 1.0, "mask": 0.5, "token": 7}, "test")
    plain = open_stream(pairs_of(corpora), "train", WINDOW, seed=5).read(0, 40)
    read = open_stream(pairs_of(corpora), "train", WINDOW, seed=5, hide=hide).read(0, 40)
    hidden = read.inputs != plain.tokens[:, :-1]
    more = (read.weights > 0) & (plain.weights == 0)
    assert more.sum() > 20 and (read.tokens == plain.tokens).all()
    sample, row = np.nonzero(more)
    assert (read.inputs[sample, row + 1] == 7).all()  # what it predicts, no row of the document sees
    assert (plain.documents[sample, row] == plain.documents[sample, row + 1]).all()
    assert (row + 1 < plain.recent_end[sample, row + 1]).all()
    assert not hidden[np.arange(20)[None] >= plain.recent_end].any()  # C is whole
    causal = build(RecentLossConfig, {"share": 1.0, "mask": 0.5, "token": 7, "rows": "context"}, "test")
    control = open_stream(pairs_of(corpora), "train", Window(0, 20, 20), seed=5, hide=causal).read(0, 40)
    short = plain.recent_end < WINDOW.recent  # R is the whole question there, so both may hide the same
    assert not control.recent.any() and (control.inputs == read.inputs)[short].all()
    assert (control.weights == read.weights)[short].all()
