from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megarc.data.documents import begun
from megarc.data.page_cache import Pages
from megarc.data.source import Facts, Sample, read_many
from megarc.data.subset import Subset
from megarc.data.windows import StridedCorpus
from megarc.errors import UserError
from megarc.window import Window

FACTS = Facts("corpus", bytes_per_token=4.0, vocabulary=100)
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Make = Callable[..., Any]


@st.composite
def windows(draw: st.DrawFn) -> Window:
    causal = draw(st.integers(1, 12))
    return Window(draw(st.integers(0, 12)), causal, draw(st.integers(1, causal)))


@given(window=windows(), extra=st.integers(0, 100))
@relaxed
def test_every_token_is_a_target_exactly_once(memory: Make, window: Window, extra: int) -> None:
    tokens = window.tokens + extra
    source = StridedCorpus(memory(tokens), window, FACTS)
    read = read_many(source, np.arange(len(source)), window).tokens
    assert (read == np.arange(len(source))[:, None] * window.stride + np.arange(window.tokens)).all()
    targets = np.sort(read[:, 1:][:, window.loss_rows].ravel())
    reach = window.first_target + len(source) * window.stride
    assert (targets == np.arange(window.first_target, reach)).all()
    assert 0 <= tokens - reach < window.stride


@given(
    window=windows(),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    cut=st.floats(0, 1),
)
@relaxed
def test_documents_of_rows_are_those_of_their_tokens(
    memory: Make, window: Window, lengths: list[int], cut: float
) -> None:
    """Against the plain way: name each token's document, then look for changes along each window."""
    document = np.repeat(np.arange(len(lengths)), lengths)
    begins = tuple(np.cumsum([0, *lengths[:-1]]).tolist())
    corpus = memory(len(document), begins)
    if cut == 1.0 or not window.count(len(document)):
        return
    try:
        source = StridedCorpus(corpus, window, FACTS, part=(cut, 1.0), isolate=True)
    except UserError:
        return
    samples = read_many(source, np.arange(len(source)), window)
    assert samples.documents is not None
    owners = document[samples.tokens[:, :-1]]
    same = owners[:, :, None] == owners[:, None, :]
    assert (same == (samples.documents[:, :, None] == samples.documents[:, None, :])).all()
    assert (source.read(len(source) - 1).documents == samples.documents[-1]).all()


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
@relaxed
def test_parts_share_no_document_and_leave_none_out(
    memory: Make, lengths: list[int], shares: list[float]
) -> None:
    window = Window(0, 1, 1)
    total = sum(lengths)
    begins = tuple(np.cumsum([0, *lengths[:-1]]).tolist())
    edges = [0.0, *sorted(set(shares) - {0.0, 1.0}), 1.0]
    seen: list[int] = []
    for part in itertools.pairwise(edges):
        try:
            source = StridedCorpus(memory(total, begins), window, FACTS, part=part)
        except UserError:
            continue
        read = read_many(source, np.arange(len(source)), window).tokens
        assert read[0, 0] in begins
        assert read[-1, -1] + 1 in (*begins, total)
        seen += range(read[0, 0], read[-1, -1] + 1)
    assert sorted(set(seen)) == sorted(seen)
    assert total - len(seen) <= len(edges)  # parts of one token have no window of two


@given(starts=st.lists(st.integers(0, 50), max_size=20), values=st.lists(st.integers(-1, 60), min_size=1))
@relaxed
def test_documents_that_have_begun_are_counted(memory: Make, starts: list[int], values: list[int]) -> None:
    begins = (0, *sorted(starts))
    expected = np.searchsorted(begins, values, side="right")
    assert (begun(memory(60, begins), np.asarray(values)) == expected).all()


def test_finding_a_document_looks_at_a_few(memory: Make) -> None:
    corpus, looked = memory(10**6, tuple(range(0, 10**6, 10))), []

    class Counting:
        document_count = 10**5

        def document_starts(self, numbers: Any) -> Any:
            looked.append(len(numbers))
            return corpus.document_starts(numbers)

    assert begun(Counting(), np.asarray([123_456, 999_999])).tolist() == [12_346, 100_000]
    assert sum(looked) <= 2 * 17


def test_a_window_longer_than_the_data_is_named(memory: Make) -> None:
    with pytest.raises(UserError, match=r"corpus: a window .* reads 21 tokens and there are only 20"):
        StridedCorpus(memory(20), Window(10, 10, 10), FACTS)


def test_a_part_says_so_in_its_digest_and_its_facts(memory: Make) -> None:
    corpus = memory(100, (0, 30, 70))
    part = StridedCorpus(corpus, Window(0, 4, 4), FACTS, part=(0.2, 0.6))
    assert part.digest == "d[30:70]"
    assert (part.facts.tokens, part.facts.documents, part.facts.name) == (40, 1, "corpus [30:70]")
    assert StridedCorpus(corpus, Window(0, 4, 4), FACTS).digest == "d"


def test_a_subset_is_fixed_distinct_and_grows(memory: Make) -> None:
    window = Window(2, 4, 3)
    source = StridedCorpus(memory(400), window, FACTS)
    small, large = Subset(source, 20, window), Subset(source, 60, window)
    first = [small.read(k).tokens[0] for k in range(20)]
    assert len(set(first)) == 20
    assert (read_many(large, np.arange(20), window).tokens[:, 0] == first).all()
    assert first != sorted(first)
    assert {small.digest, large.digest, source.digest} == {"d[20 windows]", "d[60 windows]", "d"}
    with pytest.raises(UserError, match="only 132"):
        Subset(source, 133, window)


def test_a_source_without_bulk_reading_is_stacked(memory: Make) -> None:
    window = Window(2, 2, 1)

    class Slow:
        digest, facts = "slow", Facts("slow")

        def __len__(self) -> int:
            return 5

        def read(self, k: int) -> Sample:
            return Sample(
                np.full(5, k), weights=np.asarray([k], dtype=np.float32), recent=1 if k == 3 else None
            )

    samples = read_many(Slow(), np.asarray([3, 1]), window)
    assert samples.tokens[:, 0].tolist() == [3, 1]
    assert samples.weights is not None
    assert samples.weights.tolist() == [[3], [1]]
    assert samples.recent is not None
    assert samples.recent.tolist() == [1, 2]
    assert samples.documents is None


def test_pages_are_announced_of_the_windows_that_are_read(tmp_path: Path) -> None:
    """Over a part of a file, behind a header: what is announced covers what is read, to a page."""
    told: list[tuple[int, int]] = []

    class Told(mmap.mmap):
        def madvise(self, option: int, start: int = 0, length: int = 0) -> None:  # type: ignore[override]
            told.append((start, start + length))
            super().madvise(option, start, length)

    path = tmp_path / "tokens"
    np.arange(200_000, dtype=np.uint16).tofile(path)
    with path.open("rb") as file:
        mapped = Told(file.fileno(), 0, access=mmap.ACCESS_READ)
    tokens = np.frombuffer(mapped, dtype=np.uint16, offset=100)[5000:]
    Pages(tokens).announce(np.asarray([90_000, 3]), 1025)
    for begin, (start, end) in zip([3, 90_000], told, strict=True):
        assert start % mmap.PAGESIZE == 0
        first = 100 + 2 * (5000 + begin)
        assert start <= first < start + mmap.PAGESIZE
        assert end == first + 2 * 1025
