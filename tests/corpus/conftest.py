"""Shared pieces: a small tokenizer, documents, and packing in a line."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from megarc.corpus import IndexedCorpus, PackRequest, PackSettings, pack

SENTENCE = "the quick brown fox jumps over lazy dogs and then sleeps all day in a café with 日本語"
WORDS = SENTENCE.split()


def some_texts(count: int) -> list[str]:
    """Documents of 0 to 60 words, a few of them equal."""
    return [
        " ".join(WORDS[(i * j) % len(WORDS)] for j in range(i * 7 % 61)) + f"\n{i % 97}" * (i % 5)
        for i in range(count)
    ]


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_bytes(b"".join(orjson.dumps({"id": i, "text": text}) + b"\n" for i, text in enumerate(texts)))
    return path


def pack_some(prefix: Path, *inputs: Path | str, **changes):
    """``pack`` with bytes as tokens, unless ``changes`` says otherwise; settings may be given among them."""
    own = {name: changes.pop(name) for name in list(changes) if name in PackSettings.model_fields}
    request = {"tokenizer": "bytes", "quiet": True, "workers": 0, "settings": PackSettings(**own)} | changes
    return pack(PackRequest(inputs=[str(name) for name in inputs], prefix=prefix, **request))


def documents_of(prefix: Path) -> list[bytes]:
    corpus = IndexedCorpus(prefix)
    return [bytes(corpus.document(i).astype(np.uint8)) for i in range(corpus.document_count)]


@pytest.fixture
def lines(tmp_path):
    return write_lines(tmp_path / "lines.jsonl", some_texts(300))
