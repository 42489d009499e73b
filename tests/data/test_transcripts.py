"""Weights by segment: a token counts as what the marks around it say, wherever windows begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megarc.corpus import PackRequest, PackSettings, load_tokenizer, pack_and_join, parse_marked
from megarc.corpus.indexed.corpus import IndexedCorpus
from megarc.data import DataConfig, SegmentsOf, SourceConfig, open_source, open_stream
from megarc.errors import UserError
from megarc.window import Window

TEXT = "some text <in:python>print(6 * 7)</in><out>42\n</out> more <in:coq>Check 3.</in> end"
LONG = f"a<in:python>{'x' * 9000}</in><out>{'y' * 300}</out>z"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transcripts")
    lines = [TEXT, LONG, "broken <in:python> code", TEXT]
    (folder / "in.jsonl").write_text("".join(f'{{"text": {line!r}}}\n'.replace("'", '"') for line in lines))
    settings = PackSettings(transcripts=True, append_end_of_document=True, shuffle_seed=None)
    (manifest,) = pack_and_join(
        PackRequest(inputs=[str(folder / "in.jsonl")], prefix=folder / "packed", tokenizer="bytes",
                    settings=settings, workers=0, say=lambda _: None)
    )  # fmt: skip
    assert manifest.documents == 3
    assert manifest.dropped == {"marks of a transcript do not fit together": 1}
    return folder / "packed"


def expected(weights: dict[str, float]) -> list[float]:
    """The weight of each token of the corpus, from the segments themselves."""
    found: list[float] = []
    for text in (TEXT, LONG, TEXT):
        for segment in parse_marked(text):
            framed = {"text": 0, "output": 2, "code": 2 + len(segment.language) + 1}[segment.kind]
            found += [weights[segment.kind]] * (len(segment.text) + framed)
        found.append(weights["text"])
    return found


@pytest.mark.parametrize("part", [1 << 20, 7])
@pytest.mark.parametrize("window", [Window(4, 8, 8), Window(0, 40, 7), Window(16, 16, 3)])
def test_weights_are_those_of_the_segments(
    prefix: Path, window: Window, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megarc.data.transcripts._PART", part)
    monkeypatch.setattr("megarc.data.transcripts._LOOK_BACK", part)
    weights = {"text": 1.0, "code": 0.5, "output": 0.25}
    source = open_source(SourceConfig(kind="transcripts", path=prefix, options={"weights": weights}), window)
    corpus = IndexedCorpus(prefix)
    by_token = np.asarray(expected(weights), dtype=np.float32)
    assert len(by_token) == len(corpus.tokens)
    k = np.arange(len(source))
    read = source.read_many(k)  # type: ignore[attr-defined]
    places = (k * window.stride)[:, None] + 1 + np.arange(window.rows)[window.loss_rows]
    assert (read.weights == by_token[places]).all()
    segments = SegmentsOf.of(load_tokenizer("bytes").reserved, 256, "bytes")
    by_kind = np.asarray(list(weights.values()), dtype=np.float32)
    assert (by_kind[segments.whole(corpus.tokens)] == by_token).all()
    one = source.read(len(source) // 2)
    assert one.weights is not None and (one.weights == read.weights[len(source) // 2]).all()


def test_output_costs_nothing_by_default_and_weights_are_part_of_the_identity(prefix: Path) -> None:
    window = Window(8, 8, 8)
    config = DataConfig(train=[SourceConfig(kind="transcripts", path=prefix)])
    stream = open_stream(config, "train", window, 0)
    assert stream.weighted
    read = stream.read(0, 64)
    assert read.weights is not None and set(np.unique(read.weights)) == {0.0, 1.0}
    other = SourceConfig(kind="transcripts", path=prefix, options={"weights": {"output": 1.0}})
    assert open_source(other, window).digest != stream.digests[0]


def test_bad_options_and_corpora_without_reserved_tokens(prefix: Path, tmp_path: Path) -> None:
    window = Window(8, 8, 8)
    for options, words in (({"weights": {"output": -1}}, "output"), ({"weight": {}}, "weight")):
        with pytest.raises(UserError, match=words):
            open_source(SourceConfig(kind="transcripts", path=prefix, options=options), window)
    for name in ("bin", "idx"):
        (tmp_path / f"bare.{name}").write_bytes(prefix.with_suffix(f".{name}").read_bytes())
    with pytest.raises(UserError, match="reserves no <code>"):
        open_source(SourceConfig(kind="transcripts", path=tmp_path / "bare"), window)
    assert load_tokenizer("bytes").reserved
    divided = PackSettings(transcripts=True, separator="=")
    with pytest.raises(UserError, match="whole texts"):
        pack_and_join(PackRequest(inputs=[str(prefix.parent / "in.jsonl")], prefix=tmp_path / "p", tokenizer="bytes",
                                  settings=divided, workers=0, say=lambda _: None))  # fmt: skip
