"""The fast engine: exact where it serves, found out where it is not."""

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.corpus import load_tokenizer
from megarc.corpus.tokenizer import gigatoken_engine, with_fast_engine
from megarc.corpus.tokenizer.in_parts import InParts
from megarc.corpus.tokenizer.train import train_tokenizer

from ..conftest import pack_some, some_texts, write_lines
from .test_tokenizer import HOSTILE, SAMPLE, huggingface_file  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def models(tmp_path_factory, huggingface_file):  # noqa: F811
    """A BPE, a unigram and a Hugging Face tokenizer."""
    place = tmp_path_factory.mktemp("models")
    train_tokenizer(SAMPLE, place / "bpe", 420)
    train_tokenizer(SAMPLE, place / "unigram", 328, algorithm="unigram")
    sentencepiece_model(place / "prefix", normalization_rule_name="identity", remove_extra_whitespaces=False)
    sentencepiece_model(place / "normalised")
    sentencepiece_model(place / "suffix", treat_whitespace_as_suffix=True)
    sentencepiece_model(place / "bytes_unknown", byte_fallback=False)
    return {path.stem: path for path in place.glob("*.model")} | {"huggingface": huggingface_file}


def sentencepiece_model(prefix, **settings):
    """BPE as SentencePiece's own trainer writes it: a prefix before the text, NFKC, spaces made one."""
    with prefix.with_suffix(".model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter("".join(SAMPLE).splitlines()), model_writer=file, minloglevel=2,
            **{"model_type": "bpe", "vocab_size": 420, "byte_fallback": True, "hard_vocab_limit": False} | settings,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["bpe", "prefix", "normalised", "huggingface"])
def test_gigatoken_is_exact(models, name):
    pytest.importorskip("gigatoken", reason="gigatoken is not installed: pip install 'megarc[fast]'")
    exact, said = load_tokenizer(models[name]), []
    quick = with_fast_engine(exact, said.append)
    assert "with gigatoken" in said[0]

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(texts=st.lists(HOSTILE, max_size=5))
    def same(texts):
        for found, expected in zip(quick.encode_documents(texts), exact.encode_documents(texts), strict=True):
            assert np.array_equal(found, expected)

    same()
    assert (quick.digest, quick.facts()) == (exact.digest, exact.facts())
    long = "".join(SAMPLE) * 20
    assert np.array_equal(quick.encode(long), exact.encode(long))


@pytest.mark.parametrize("name", ["bpe", "huggingface"])
def test_a_renewed_engine_is_the_same(models, name, monkeypatch):
    """When its cache has grown too big, a new one takes over: here at every call."""
    pytest.importorskip("gigatoken", reason="gigatoken is not installed: pip install 'megarc[fast]'")
    monkeypatch.setattr(gigatoken_engine, "_MOST_MEGABYTES", 0)
    monkeypatch.setattr(gigatoken_engine, "_LEAST_CHARACTERS", 0)
    exact = load_tokenizer(models[name])
    quick = with_fast_engine(exact, lambda line: None)
    for _ in range(3):
        for found, expected in zip(
            quick.encode_documents(SAMPLE), exact.encode_documents(SAMPLE), strict=True
        ):
            assert np.array_equal(found, expected)


def test_what_no_engine_serves_stays_plain(models):
    said: list[str] = []
    tokenizer = load_tokenizer("bytes")
    assert with_fast_engine(tokenizer, said.append) is tokenizer
    for name in ("unigram", "bytes_unknown", "suffix"):
        assert type(with_fast_engine(load_tokenizer(models[name]), said.append)) is InParts
    assert len(said) == 3
    assert "unigram" in said[0] or "pip install" in said[0]
    assert "byte_fallback" in said[1] or "pip install" in said[1]
    assert "suffix" in said[2] or "pip install" in said[2]


def lying(tokenizer, when):
    """What makes an engine that is wrong where ``when(text)``."""

    def encode(text):
        ids = tokenizer.encode_documents([text])[0]
        return ids[:-1] if when(text) and len(ids) else ids

    return lambda: encode


def test_a_wrong_engine_is_found_out_at_once(models, monkeypatch):
    exact, said = load_tokenizer(models["bpe"]), []
    monkeypatch.setattr(
        gigatoken_engine, "_engine", lambda tokenizer: lying(tokenizer, lambda text: "\0" in text)
    )
    assert type(with_fast_engine(exact, said.append)) is InParts
    assert r"differs from it on" in said[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_engine_that_goes_wrong_is_dropped_and_its_work_with_it(tmp_path, models, monkeypatch, workers):
    """It is wrong on documents unlike the ones compared at loading; the audit sees every document here."""
    lines = write_lines(tmp_path / "l.jsonl", [*some_texts(300), *["sleeps rarely wrong"] * 20])
    monkeypatch.setattr(
        gigatoken_engine, "_engine", lambda tokenizer: lying(tokenizer, lambda text: "rarely" in text)
    )
    monkeypatch.setattr(gigatoken_engine, "_AUDIT_SHARE", 1e9)
    monkeypatch.setattr("megarc.corpus.inputs.byte_range._BLOCK_DOCUMENTS", 3)
    said: list[str] = []
    arguments = {"tokenizer": str(models["bpe"]), "append_end_of_document": True, "workers": workers}
    pack_some(tmp_path / "a", lines, say=said.append, **arguments)
    assert any("differs" in line and "starting again" in line for line in said)
    pack_some(tmp_path / "b", lines, engine="plain", **arguments)
    for suffix in ("bin", "idx", "json"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_the_audit_of_a_long_document_is_bounded(models, monkeypatch):
    """The exact library sees a part of it; an engine that is wrong anywhere in it is found out all the same."""
    exact = load_tokenizer(models["bpe"])
    text = "".join(SAMPLE) * 300
    assert len(text) > 20 * gigatoken_engine._AUDIT_CHARACTERS
    monkeypatch.setattr(
        gigatoken_engine, "_engine", lambda tokenizer: lying(tokenizer, lambda text: len(text) > 60_000)
    )
    quick = with_fast_engine(exact, lambda line: None)
    seen: list[int] = []
    encode = exact.encode_documents
    monkeypatch.setattr(
        exact, "encode_documents", lambda texts: seen.extend(map(len, texts)) or encode(texts)
    )
    monkeypatch.setattr(quick, "_encode", lambda text: [0] * 3)
    with pytest.raises(gigatoken_engine.EngineError, match="differs from"):
        quick.encode_documents([text])
    assert seen == [gigatoken_engine._AUDIT_CHARACTERS]
