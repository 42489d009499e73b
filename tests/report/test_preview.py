"""A preview says of every token whether it is read in R, in C, and whether it is predicted: as the loss sees it."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from support.small_run import page

from megarc.config import build
from megarc.corpus import IndexedCorpus, PackRequest, PackSettings, pack
from megarc.data import DataConfig, RecentLossConfig, open_stream
from megarc.report.preview import as_html, as_text, parts_of, shown
from megarc.train.run_position import Standing
from megarc.window import Window


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preview")
    lines = [f'{{"text": "<{number}> one & two "}}' for number in range(60)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    settings = PackSettings(append_end_of_document=True, shuffle_seed=None)
    pack(
        PackRequest([str(folder / "text.jsonl")], folder / "packed", "bytes", settings, workers=0, quiet=True)
    )
    return folder


def decode(ids):
    return bytes(number for number in ids if number < 256).decode()


def opened(corpus, window, **more):
    keys = {"train": [{"path": str(corpus / "packed")}], **more.pop("keys", {})}
    return open_stream(build(DataConfig, keys, "test"), "train", window, 0, **more)


@pytest.mark.parametrize("window", [Window(6, 10, 8), Window(0, 16, 16), Window(5, 7, 7)])
def test_parts_are_those_of_mask_and_loss(corpus, window):
    batch = opened(corpus, window).read(3, 1)
    parts = parts_of(batch, window)
    predicted = [row + 1 for row in range(window.rows)[window.loss_rows]]
    assert [place for place, part in enumerate(parts) if part == "predicted"] == predicted
    read = [part for place, part in enumerate(parts) if place not in predicted]
    assert read == ["R"] * window.recent + ["C"] * (window.rows + 1 - window.recent - window.stride)
    assert parts[0] == ("R" if window.recent else "C")


def test_texts_of_a_sample_put_together_are_its_tokens(corpus):
    stream = opened(corpus, Window(6, 30, 20), keys={"documents": "isolate"})
    for one in shown(stream, range(5), decode):
        batch = stream.read(one.sample, 1)
        assert "".join(run.text for run in one.runs) == decode(batch.tokens[0].tolist())
        assert sum(run.begins for run in one.runs) == np.count_nonzero(np.diff(batch.documents[0]))
        source, number = stream.origin(one.sample)
        first = source.first(number)
        inside = IndexedCorpus(corpus / "packed").documents_of(first, first + 37)
        named = [int(word) for word in re.findall(r"\d+", one.where.split(",")[0])]
        assert named == sorted({int(inside[0]), int(inside[-1])}) and one.counts["predicted"] == 20


def test_hidden_tokens_are_shown_as_such(corpus):
    hide = RecentLossConfig(share=1.0, mask=0.5, token=270)
    stream = opened(corpus, Window(12, 8, 8), hide=hide)
    (one,) = shown(stream, [0], lambda ids: "x" * len(ids))
    hidden = sum(len(run.text) for run in one.runs if run.hidden)
    batch = stream.read(0, 1)
    assert hidden == np.count_nonzero(batch.inputs[0] == 270) > 0


def test_text_and_page_escape_what_they_show(corpus):
    stream = opened(corpus, Window(6, 30, 20))
    samples = shown(stream, range(2), decode)
    assert "&lt;" in as_html(samples, stream) and "<3>" not in as_html(samples, stream)
    assert samples[0].head in as_text(samples, stream).plain


def test_without_colours_each_part_is_named(corpus):
    hide = RecentLossConfig(share=1.0, mask=0.5, token=270)
    stream = opened(corpus, Window(12, 8, 8), hide=hide)
    (one,) = samples = shown(stream, [0], decode)
    printed = as_text(samples, stream, marks=True).plain.split(one.head)[1]
    for run in one.runs:
        hidden = ", hidden" if run.hidden else ""
        begin = printed.index(f"\u00ab{run.part}{hidden}\u00bb {run.text}")
        printed = printed[begin + len(run.text) :]
    assert "\u00ab" not in as_text(samples, stream).plain


def test_the_page_shows_text_that_is_packed_while_it_is_read(corpus, capsys, tmp_path):
    words = ["window.recent=6", "window.causal=30", f"data.cache={tmp_path}", "data.workers=0",
             f"data.train=[{{kind: text, path: {corpus}/text.jsonl, tokenizer: bytes}}]"]  # fmt: skip
    page("launch/preview.py", "--config", made(corpus), "--samples", 2, *words)
    printed = capsys.readouterr().out
    assert "sample 1:" in printed and "text.jsonl at" in printed and "one & two" in printed
    page("launch/preview.py", "--config", made(corpus), "--html", tmp_path / "p.html", *words)
    assert "3 samples are in" in capsys.readouterr().out
    assert "one &amp; two" in (tmp_path / "p.html").read_text()


def test_a_run_is_shown_in_its_phase(corpus, capsys, tmp_path, monkeypatch):
    """One that began from another's checkpoint, with other data, reads in another order, from its sample 0 on."""
    (tmp_path / "run").mkdir()
    keys = {"window": {"recent": 6, "causal": 30}, "data": {"train": [{"path": str(corpus / "packed")}]}}
    (tmp_path / "run" / "config.yaml").write_text(json.dumps(keys))
    stands = SimpleNamespace(standing=Standing(step=9, samples=12, phase=2, begin=7))
    monkeypatch.setattr("megarc.train.find_checkpoint", lambda path: stands)
    stream = opened(corpus, Window(6, 30, 30)).in_phase(2)
    for more, first in (((), 5), (("--from", 3), 3)):
        page("launch/preview.py", "--run", tmp_path / "run", "--samples", 2, *more)
        printed = capsys.readouterr().out
        heads = [one.head for one in shown(stream, range(first, first + 2), decode)]
        assert [line for line in printed.splitlines() if line.startswith("sample ")] == heads


def made(folder):
    (folder / "keys.yaml").write_text("seed: 1\n")
    return folder / "keys.yaml"
