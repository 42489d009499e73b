"""Long documents in parts: the ids of the whole, the library never sees the whole, and a wrong border is found out."""

import re

import numpy as np
import pytest

from megarc.corpus import load_tokenizer
from megarc.corpus.tokenizer import EngineError, gigatoken_engine, in_parts, with_fast_engine
from megarc.corpus.tokenizer.in_parts import InParts
from megarc.corpus.tokenizer.text_borders import TextBorders

from ..conftest import pack_some, write_lines
from .test_known_borders import files  # noqa: F401  (a fixture)
from .test_tokenizer import SAMPLE

LONG = "".join(SAMPLE) * 6


@pytest.fixture
def short(monkeypatch):
    for name, size in (("_LONG", 20_000), ("_PART", 1000), ("_AUDIT", 2000), ("_PARTS_AT_ONCE", 7)):
        monkeypatch.setattr(in_parts, name, size)


@pytest.mark.parametrize("kind", ["gpt2", "llama2", "bpe", "normalised"])
def test_a_long_document_is_encoded_in_parts(files, kind, short, monkeypatch):  # noqa: F811
    exact = load_tokenizer(files[kind])
    whole, lengths = exact.encode_documents(["short", LONG, "", "x y"])
    seen, encode = [], exact.encode_documents
    monkeypatch.setattr(
        exact, "encode_documents", lambda texts: seen.extend(map(len, texts)) or encode(texts)
    )
    found = InParts(exact).encode_documents(["short", LONG, "", "x y"])
    assert np.array_equal(found[0], whole) and np.array_equal(found[1], lengths)
    assert max(seen) <= 2000 < len(LONG)


def test_without_known_borders_the_library_sees_the_whole(files, short):  # noqa: F811
    exact = load_tokenizer(files["unigram"])
    for found, expected in zip(
        InParts(exact).encode_documents([LONG]), exact.encode_documents([LONG]), strict=True
    ):
        assert np.array_equal(found, expected)


def test_a_wrong_border_is_found_out_and_the_job_starts_again(files, short, tmp_path, monkeypatch):  # noqa: F811
    anywhere = TextBorders(re.compile("."))
    monkeypatch.setattr(in_parts, "known_borders", lambda tokenizer: anywhere)
    monkeypatch.setattr(gigatoken_engine, "_engine", no_engine)
    exact = load_tokenizer(files["bpe"])
    with pytest.raises(EngineError, match="parts of a text"):
        with_fast_engine(exact, print).encode_documents([LONG])
    said = []
    lines = write_lines(tmp_path / "l.jsonl", ["short", LONG])
    pack_some(tmp_path / "a", lines, say=said.append, tokenizer=str(files["bpe"]))
    assert any("parts of a text" in line and "starting again" in line for line in said)
    pack_some(tmp_path / "b", lines, engine="plain", tokenizer=str(files["bpe"]))
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def no_engine(tokenizer):
    raise gigatoken_engine._NoEngineError("none here")


@pytest.mark.parametrize("kind", ["gpt2", "llama2"])
def test_the_engine_never_sees_an_unstable_character(files, kind, monkeypatch):  # noqa: F811
    """Nor in the audit, which draws a part of a long document."""
    exact = load_tokenizer(files[kind])
    text = LONG + "odd\ua7cf words " + LONG
    monkeypatch.setattr(gigatoken_engine, "_AUDIT_CHARACTERS", len(text) - 100)
    monkeypatch.setattr(gigatoken_engine, "_compare", lambda encode, tokenizer: None)
    seen = []

    def encode(part):
        seen.append(len(part))
        return exact.encode_documents([part])[0] if "\ua7cf" not in part else np.zeros(1, np.int32)

    monkeypatch.setattr(gigatoken_engine, "_engine", lambda tokenizer: lambda: encode)
    quick = with_fast_engine(exact, lambda line: None)
    assert np.array_equal(quick.encode(text), exact.encode(text))
    assert sum(seen) > len(text)  # nearly all of it, and again in the audit
