"""Mixtures that change: counts are exact, nothing repeats before its epoch is over, also with windows that change."""

from collections import Counter

import numpy as np
import pytest

from megarc.config import build
from megarc.corpus import IndexedWriter
from megarc.data import Gaps, part_of_step
from megarc.errors import UserError
from megarc.train import RunConfig, open_train
from megarc.train.loop import Moment
from megarc.train.metrics import SourceCounts

NAMES = ("a", "b")
CHANGE = [{"at": "20 steps", "weights": [1, 0]}, {"at": "0.8 of run", "weights": [1, 3]}]
WINDOWS = [
    {"at": "0 steps", "recent": 4, "causal": 4},
    {"at": "30 steps", "recent": 4, "causal": 8},
]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blends")
    for number, name in enumerate(NAMES):
        with IndexedWriter(folder / name, np.uint16) as writer:
            writer.add(np.arange(2000, dtype=np.uint16) + 2000 * number)
            writer.finish()
    return folder


def opened(folder, stages=CHANGE, **keys):
    tree = {
        "data": {"train": [{"path": str(folder / name)} for name in NAMES], "blend_stages": stages},
        "window": {"recent": 4, "causal": 8},
        "batch": {"size": 6},
        "length": "50 steps",
        "model": {"vocabulary": 4000},
        **keys,
    }
    return open_train(build(RunConfig, tree, "test"))


def sources_of(stream, samples):
    return [stream.sources.index(stream.origin(sample)[0]) for sample in range(samples)]


@pytest.mark.parametrize("windows", [{}, {"window": {"stages": WINDOWS}}])
def test_counts_are_exact_at_every_sample(corpora, windows):
    stream = opened(corpora, **windows)
    drawn = sources_of(stream, 300)
    for sample in range(0, 301, 7):
        assert stream.counts(sample) == [drawn[:sample].count(which) for which in range(2)]
    assert abs(drawn[:120].count(0) - 60) <= 1 and set(drawn[121:240]) == {0}
    assert abs(drawn[240:].count(1) - 45) <= 2


@pytest.mark.parametrize("windows", [{}, {"window": {"stages": WINDOWS}}])
def test_no_token_is_predicted_twice_before_its_epoch_is_over(corpora, windows):
    stream = opened(corpora, **windows)
    predicted = Counter()
    for sample in range(220):
        batch = stream.read(sample, 1)
        stride = stream.shapes.piece(sample).window.stride
        predicted.update(batch.tokens[0, -stride:].tolist())
    assert max(predicted.values()) == 1 and len(predicted) > 1000


def test_every_number_of_ranks_reads_the_same(corpora):
    whole = opened(corpora).read(117, 6).tokens
    for ranks in (1, 2, 3):
        stream = opened(corpora)
        parts = [
            stream.read(first, count).tokens
            for rank in range(ranks)
            for first, count in part_of_step(117, 6, rank, ranks, 1)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_metrics_leave_skipped_ranges_and_earlier_phases_out(corpora):
    stream = opened(corpora)
    drawn = sources_of(stream, 300)
    counts = SourceCounts(stream, Gaps.of([(30, 42)], begin=12))
    counts.settled(None, Moment(40, 50, 240), [])
    kept = drawn[:30] + drawn[42 : 240 - 12 + 12]
    assert list(counts.values().values()) == [kept.count(0), kept.count(1)]
    assert set(counts.values()) == {"data/a/samples", "data/b/samples"}


def test_stages_change_the_order_and_the_table_counts_them(corpora):
    plain, staged = opened(corpora, stages=[]), opened(corpora)
    assert plain.order != staged.order == opened(corpora).order
    counts = staged.counts(300)
    for share, count in zip(staged.describe(300), counts, strict=True):
        assert share.share == pytest.approx(count / 300) and share.epochs == pytest.approx(
            count / share.windows
        )
    assert staged.bytes_per_token is None


def test_what_makes_no_blend_is_refused(corpora):
    cases = {
        r"weights of a stage of the blend are \[0.0, 0.0\]": [{"at": "5 steps", "weights": [0, 0]}],
        "weights of a stage of the blend": [{"at": "5 steps", "weights": [1, -1]}],
        r"blend_stages\[0\] has 1 weights, and data.train 2 sources": [{"at": "5 steps", "weights": [1]}],
        r"begins at sample 0, no later": [{"at": "0 steps", "weights": [1, 1]}],
        r"blend_stages\[1\] at '0.1 of run'": [
            {"at": "9 steps", "weights": [1, 1]}, {"at": "0.1 of run", "weights": [1, 1]}
        ],
    }  # fmt: skip
    for words, stages in cases.items():
        with pytest.raises(UserError, match=words):
            opened(corpora, stages=stages)
