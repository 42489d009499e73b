"""Parquet: rows are documents, row groups share the work out."""

import gzip

import pytest

from megarc.corpus.inputs import split_files
from megarc.errors import UserError

from ..conftest import documents_of, pack_some, some_texts

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'megarc[parquet]'")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path, column, name="text", **options):
    parquet.write_table(pyarrow.table({"id": list(range(len(column))), name: column}), path, **options)
    return path


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("group", [7, 1000])
def test_rows_are_documents(tmp_path, monkeypatch, workers, group):
    monkeypatch.setattr(split_files, "_piece_bytes", lambda inputs: 2000)
    texts = some_texts(200)
    path = write(tmp_path / "t.parquet", texts, row_group_size=group)
    pack_some(tmp_path / "c", path, workers=workers, shuffle_seed=None)
    assert documents_of(tmp_path / "c") == [text.encode() for text in texts]


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
def test_other_types_of_strings(tmp_path, kind):
    types = {"large_string": pyarrow.large_string(), "string_view": pyarrow.string_view()}
    column = pyarrow.array(["a", "é"])
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(types[kind])
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"text": column}), path)
    pack_some(tmp_path / "c", path, shuffle_seed=None)
    assert documents_of(tmp_path / "c") == [b"a", "é".encode()]


def test_compressed_again_and_nulls(tmp_path):
    path = tmp_path / "t.parquet.gz"
    path.write_bytes(gzip.compress(write(tmp_path / "t.parquet", ["a", None, "b"]).read_bytes()))
    (manifest,) = pack_some(tmp_path / "c", path, shuffle_seed=None, max_bad=0.5)
    assert documents_of(tmp_path / "c") == [b"a", b"b"]
    assert manifest.inputs[0].rejects == 1
    assert '"line":2,"byte":1,"reason":"the column' in (tmp_path / "c.rejects.jsonl").read_text()


def test_what_is_wrong_is_named(tmp_path):
    path = write(tmp_path / "t.parquet", ["a", "b"], name="body")
    with pytest.raises(UserError, match=r"t\.parquet has no column 'text' \(it has: id, body\)"):
        pack_some(tmp_path / "c", path)
    with pytest.raises(UserError, match=r"the column 'id' holds int64"):
        pack_some(tmp_path / "c", path, json_key="id")
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], b"x" * 100):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"t\.parquet is not a parquet file"):
            pack_some(tmp_path / "c", path)
