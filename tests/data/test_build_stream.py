from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megarc.config import build, identity
from megarc.data import DataConfig, Facts, Sample, SourceConfig, Stream, WindowConfig, open_stream
from megarc.errors import UserError
from megarc.window import Window

WINDOW = Window(4, 4, 4)
Pack = Callable[..., Path]


def data(**tree: Any) -> DataConfig:
    return build(DataConfig, tree, "test")


def source(path: Path, **keys: Any) -> dict[str, Any]:
    return {"path": str(path), **keys}


def owners(stream: Stream, samples: int) -> list[float]:
    """Each source's part of the first samples, by their tokens: source j's begin at j * 10**6."""
    owner = stream.read(0, samples).tokens[:, 0] // 10**6
    return [float((owner == which).mean()) for which in range(len(stream.sources))]


@pytest.mark.parametrize(
    ("blend", "expected"),
    [
        ("tokens", [0.75, 0.25]),
        ("epochs", [3 * 1000 / (3 * 1000 + 4000), 4000 / (3 * 1000 + 4000)]),
        ("documents", [3 * 10 / (3 * 10 + 100), 100 / (3 * 10 + 100)]),
    ],
)
def test_weights_count_tokens_documents_or_epochs(packed: Pack, blend: str, expected: list[float]) -> None:
    one, two = packed("one", [10] * 100), packed("two", [100] * 40, first=10**6)
    stream = open_stream(
        data(train=[source(one, weight=3), source(two)], blend=blend), "train", WINDOW, seed=0
    )
    assert np.abs(np.subtract(owners(stream, 65_536), expected)).max() < 0.003
    shares = [row.share for row in stream.describe(1000)]
    assert owners(stream, 65_536) == shares


def test_held_out_windows_come_once_in_order(packed: Pack) -> None:
    one, two = packed("one", [50]), packed("two", [30, 31], first=10**6)
    stream = open_stream(data(valid=[source(one), source(two)]), "valid", WINDOW, seed=0)
    begins = stream.read(0, len(stream)).tokens[:, 0].tolist()
    assert begins == [*range(0, 41, 4), *range(10**6, 10**6 + 53, 4)]


def test_a_split_by_parts_shares_nothing(packed: Pack) -> None:
    path = packed("one", [7] * 100)
    config = data(train=[source(path, part=[0, 0.8])], valid=[source(path, part=[0.8, 1])])
    train, valid = (open_stream(config, which, WINDOW, seed=0) for which in ("train", "valid"))
    assert train.digests != valid.digests
    trained = set(train.read(0, 4000).tokens.ravel().tolist())
    held_out = set(valid.read(0, len(valid)).tokens.ravel().tolist())
    assert not trained & held_out
    assert max(trained) < 560 <= min(held_out)
    assert len(trained) > 560 - WINDOW.stride
    assert len(held_out) > 140 - WINDOW.stride


def test_a_fixed_number_of_windows(packed: Pack) -> None:
    config = data(train=[source(packed("one", [1000]), windows=20)])
    read = [
        set(open_stream(config, "train", WINDOW, seed).read(0, 40).tokens[:, 0].tolist()) for seed in range(3)
    ]
    assert len(read[0]) == 20
    assert read[0] == read[1] == read[2]


def test_documents_may_be_kept_apart(packed: Pack) -> None:
    config = data(train=[source(packed("one", [5] * 100))], documents="isolate")
    batch = open_stream(config, "train", WINDOW, seed=0).read(0, 64)
    assert batch.documents is not None
    assert (np.diff(batch.documents, axis=1) == (batch.tokens[:, 1:-1] % 5 == 0)).all()


def test_a_new_phase_and_a_new_seed_have_orders_of_their_own(packed: Pack) -> None:
    config = data(train=[source(packed("one", [4000]))], short_recent=0.5)
    first = open_stream(config, "train", WINDOW, seed=0).read(0, 100)
    for other in (
        open_stream(config, "train", WINDOW, seed=0, phase=1),
        open_stream(config, "train", WINDOW, seed=1),
    ):
        batch = other.read(0, 100)
        assert (batch.tokens[:, 0] != first.tokens[:, 0]).sum() > 90
        assert (batch.recent != first.recent).any()


def test_arms_of_an_experiment_read_the_same_samples(packed: Pack) -> None:
    config = data(train=[source(packed("one", [4000]))])
    split, causal = (open_stream(config, "train", Window(r, 8 - r, 4), 0).read(0, 500) for r in (4, 0))
    assert (split.tokens == causal.tokens).all()
    assert set(split.recent) == {4}
    assert set(causal.recent) == {0}


def test_another_kind_of_source_is_handed_in() -> None:
    class Constant:
        facts = Facts("constant")

        def __init__(self, config: SourceConfig, window: Window) -> None:
            self.token, self.tokens = config.options["token"], window.tokens
            self.digest = f"constant {self.token}"

        def __len__(self) -> int:
            return 3

        def read(self, k: int) -> Sample:
            return Sample(np.full(self.tokens, self.token))

    sources = [{"kind": "constant", "options": {"token": token}, "weight": token} for token in (1, 3)]
    config = data(train=sources)
    stream = open_stream(config, "train", WINDOW, 0, makers={"constant": Constant})
    assert np.bincount(stream.read(0, 1000).tokens[:, 0]).tolist() == [0, 250, 0, 750]
    with pytest.raises(
        UserError, match=r"data.train\[0\]: unknown kind of source 'constant'; known are corpus"
    ):
        open_stream(config, "train", WINDOW, 0)
    with pytest.raises(UserError, match="does not know its documents"):
        open_stream(data(train=sources, blend="documents"), "train", WINDOW, 0, makers={"constant": Constant})


def test_what_cannot_be_opened_says_why(packed: Pack, tmp_path: Path) -> None:
    path = packed("one", [100])
    cases: list[tuple[list[dict[str, Any]], str]] = [
        ([], "is empty; add a source"),
        ([{}], "needs a path"),
        ([source(path), source(path)], "holds the same as"),
        ([source(path, windows=1000)], r"1000 windows wanted, and it has only (\d+); use at most \1\b"),
        ([source(path, part=[0.5, 1])], "only 0"),
        ([source(tmp_path / "nothing")], "nothing"),
    ]
    for sources, message in cases:
        with pytest.raises(UserError, match=message):
            open_stream(data(train=sources), "train", WINDOW, 0)
    with pytest.raises(UserError, match=r"a window .* reads 201 tokens and there are only 100"):
        open_stream(data(train=[source(path)]), "train", Window(100, 100, 100), 0)


def test_keys_out_of_range_are_named() -> None:
    for keys, message in (
        ({"train": [{"part": [0.5, 0.5]}]}, "0 <= from < to <= 1"),
        ({"train": [{"weight": 0}]}, "train.0.weight"),
        ({"short_recent": 1.5}, "short_recent"),
        ({"train": [{"pth": "x"}]}, "unknown key 'train.0.pth'"),
    ):
        with pytest.raises(UserError, match=message):
            data(**keys)


def test_where_a_corpus_lies_is_no_identity_but_its_weight_is() -> None:
    here, there = (data(train=[source(Path(path))]) for path in ("/a", "/b"))
    assert identity(here) == identity(there)
    assert identity(here) != identity(data(train=[source(Path("/a"), weight=2)]))


def test_a_stride_left_out_is_all_of_c() -> None:
    assert build(WindowConfig, {"recent": 3, "causal": 5}, "test").build() == Window(3, 5, 5)
    assert build(WindowConfig, {"recent": 3, "causal": 5, "stride": 2}, "test").build() == Window(3, 5, 2)


def test_corpora_named_without_brackets_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"no such corpus.*a list, in brackets: \[.*/a,b\]"):
        open_stream(data(train=f"{tmp_path}/a,b"), "train", WINDOW, 0)
