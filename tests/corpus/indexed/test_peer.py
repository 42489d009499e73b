"""megatron-core reads our corpora and we read its, byte for byte.

It runs where megatron-core can be imported, or lies at MEGARC_PEER_PATH:
``pip install --no-deps --target DIRECTORY megatron-core==0.16.1`` (17 MB; Python 3.11).
"""

import importlib.util
import json
import os
import random
import subprocess
import sys
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest

from megarc.corpus import IndexedCorpus, IndexedWriter, load_tokenizer, make_manifest, verify

from ..conftest import pack_some, some_texts, write_lines

PEER = os.environ.get("MEGARC_PEER_PATH", "")
HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    not PEER and importlib.util.find_spec("megatron") is None,
    reason="no megatron-core: pip install --no-deps --target D megatron-core==0.16.1; MEGARC_PEER_PATH=D",
)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Corpora of ours, with what Megatron makes of the same documents and reads in our files."""
    place = tmp_path_factory.mktemp("peer")
    chance = random.Random(3)
    cases = [("bytes", some_texts(100)), ("wide", None), *((f"random{i}", None) for i in range(6))]
    for name, texts in cases:
        folder = place / name
        folder.mkdir()
        if texts:
            pack_some(folder / "ours", write_lines(folder / "l.jsonl", texts), append_end_of_document=True)
            ours = IndexedCorpus(folder / "ours")
            documents = [ours.document(i).tolist() for i in range(ours.document_count)]
            dtype = ours.dtype.name
        else:
            dtype = "int32" if name == "wide" else "uint16"
            documents = random_documents(chance, 200_000 if name == "wide" else 65_499)
            write(folder / "ours", documents, dtype)
        (folder / "documents.json").write_text(json.dumps({"documents": documents, "dtype": dtype}))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [PEER, os.environ.get("PYTHONPATH")]))
    }
    command = [sys.executable, str(HERE / "peer_megatron.py"), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return sorted(path.parent for path in place.glob("*/documents.json"))


def random_documents(chance: random.Random, limit: int) -> list[list[int]]:
    documents = [
        [chance.randrange(limit) for _ in range(chance.randrange(40))] for _ in range(chance.randrange(1, 30))
    ]
    return [*documents, [limit]]


def write(prefix: Path, documents: list[list[int]], dtype: str) -> None:
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add(np.array(document, dtype))
        writer.finish()


def test_our_files_are_the_builders_byte_for_byte(places):
    for place in places:
        for suffix in ("bin", "idx"):
            ours, theirs = place / f"ours.{suffix}", place / f"theirs.{suffix}"
            assert ours.read_bytes() == theirs.read_bytes(), place.name


def test_megatron_reads_ours(places):
    for place in places:
        documents = json.loads((place / "documents.json").read_text())["documents"]
        seen = json.loads((place / "seen.json").read_text())
        assert seen["sequences"] == [document for document in documents if document]
        edges = seen["documents"]
        joined = [list(chain.from_iterable(seen["sequences"][a:b])) for a, b in pairwise(edges)]
        assert joined == documents


def test_we_read_theirs(places):
    for place in places:
        documents = json.loads((place / "documents.json").read_text())["documents"]
        theirs = IndexedCorpus(place / "theirs")
        assert [theirs.document(i).tolist() for i in range(theirs.document_count)] == documents
        make_manifest(
            place / "theirs", load_tokenizer("bytes") if place.name == "bytes" else None, quiet=True
        )
        assert verify(place / "theirs", quiet=True) == []
        assert IndexedCorpus(place / "theirs").digest == make_digest(place)


def make_digest(place: Path) -> str:
    """The content digest of ours: the same documents are the same corpus."""
    if not (place / "ours.json").exists():
        make_manifest(place / "ours", quiet=True)
    return IndexedCorpus(place / "ours").digest
