"""The .bin/.idx files: round trips, the byte layout, and damage."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.corpus import IndexedCorpus, IndexedWriter, dtype_for
from megarc.errors import UserError

DOCUMENTS = st.lists(st.lists(st.integers(0, 65499), max_size=12), max_size=20)


def write(prefix: Path, documents: list[list[int]], dtype: str = "uint16") -> None:
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add(np.array(document, dtype))
        writer.finish()


@settings(max_examples=60, derandomize=True, deadline=None)
@given(documents=DOCUMENTS, dtype=st.sampled_from(["uint16", "int32"]))
def test_reads_what_was_written(tmp_path_factory, documents, dtype):
    prefix = tmp_path_factory.mktemp("corpus") / "c"
    write(prefix, documents, dtype)
    corpus = IndexedCorpus(prefix)
    assert corpus.tokens.tolist() == [token for document in documents for token in document]
    assert [corpus.document(i).tolist() for i in range(corpus.document_count)] == documents
    assert corpus.documents.tolist() == [sum(map(len, documents[:i])) for i in range(len(documents))]
    holders = [i for i, document in enumerate(documents) for _ in document]
    assert corpus.documents_of(0, len(holders)).tolist() == holders
    assert corpus.documents_of(2, max(2, len(holders) - 1)).tolist() == holders[2:-1]


@settings(max_examples=30, derandomize=True, deadline=None)
@given(documents=DOCUMENTS)
def test_bytes_are_those_of_the_format(tmp_path_factory, documents):
    """Against the format written out from its table, value by value."""
    prefix = tmp_path_factory.mktemp("corpus") / "c"
    write(prefix, documents)
    sequences = [document for document in documents if document]
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, len(sequences), len(documents) + 1)
    index += b"".join(struct.pack("<i", len(sequence)) for sequence in sequences)
    index += b"".join(struct.pack("<q", 2 * sum(map(len, sequences[:i]))) for i in range(len(sequences)))
    index += b"".join(
        struct.pack("<q", sum(1 for document in documents[:i] if document)) for i in range(len(documents) + 1)
    )
    assert Path(f"{prefix}.idx").read_bytes() == index
    assert Path(f"{prefix}.bin").read_bytes() == b"".join(struct.pack("<H", t) for d in documents for t in d)


def test_several_sequences_a_document_and_modes_as_megatron_may_write_them(tmp_path):
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, 3, 3)
    body = struct.pack("<3i3q3q", 2, 1, 3, 0, 8, 12, 0, 2, 3)
    (tmp_path / "m.bin").write_bytes(struct.pack("<6i", 1, 2, 3, 4, 5, 70000))
    for modes in (b"", b"\0\1\0"):
        (tmp_path / "m.idx").write_bytes(header + body + modes)
        corpus = IndexedCorpus(tmp_path / "m.idx")
        assert [corpus.document(i).tolist() for i in range(2)] == [[1, 2, 3], [4, 5, 70000]]
        assert corpus.documents_of(1, 5).tolist() == [0, 0, 1, 1]
        assert len(corpus.digest) == 64


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_every_truncation_is_refused(tmp_path, suffix):
    write(tmp_path / "c", [[1, 2, 3], [], [4]])
    path = tmp_path / f"c.{suffix}"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=str(path)):
            IndexedCorpus(tmp_path / "c")


def test_a_flip_in_the_index_is_refused_or_harmless(tmp_path):
    """Each bit of the .idx: a clear error, or other borders that still lie inside; never other tokens."""
    documents = [[1, 2, 3], [], [4], [5, 6]]
    write(tmp_path / "c", documents)
    path = tmp_path / "c.idx"
    whole = path.read_bytes()
    refused = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            corpus = IndexedCorpus(tmp_path / "c")
        except UserError as error:
            assert "c.idx" in str(error)
            refused += 1
            continue
        read = np.concatenate([corpus.document(i) for i in range(corpus.document_count)])
        assert read.tobytes() == (tmp_path / "c.bin").read_bytes()
    assert refused > 0.95 * 8 * len(whole)


def test_an_error_while_writing_leaves_the_old_corpus(tmp_path):
    write(tmp_path / "c", [[1, 2, 3]])
    with pytest.raises(ZeroDivisionError), IndexedWriter(tmp_path / "c", "uint16") as writer:
        writer.add(np.array([9]))
        raise ZeroDivisionError
    assert IndexedCorpus(tmp_path / "c").tokens.tolist() == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.bin", "c.idx"]


def test_a_missing_corpus_is_named(tmp_path):
    with pytest.raises(UserError, match="no such corpus"):
        IndexedCorpus(tmp_path / "nothing")
    (tmp_path / "text.idx").write_text("once upon a time, in a file that is no index at all\n")
    (tmp_path / "text.bin").touch()
    with pytest.raises(UserError, match="not an index of a corpus"):
        IndexedCorpus(tmp_path / "text")


def test_type_by_vocabulary():
    assert [dtype_for(size).name for size in (256, 65499, 65500, 200000)] == [
        "uint16",
        "uint16",
        "int32",
        "int32",
    ]
