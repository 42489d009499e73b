"""What datatrove writes goes straight in: its filter's documents, as JSON lines and as parquet."""

import pytest

from ..conftest import documents_of, pack_some, some_texts, write_lines

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install 'datatrove[io]'")

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter


def test_filtered_documents_are_packed_as_they_are(tmp_path):
    texts = [text for text in some_texts(120) if text.strip()]
    (tmp_path / "in").mkdir()
    write_lines(tmp_path / "in" / "web.jsonl", texts)
    LocalPipelineExecutor(
        [
            JsonlReader(str(tmp_path / "in")),
            LambdaFilter(lambda document: "sleeps" in document.text),
            JsonlWriter(str(tmp_path / "lines")),
            JsonlWriter(str(tmp_path / "flat"), expand_metadata=True, compression="zstd"),
            ParquetWriter(str(tmp_path / "rows")),
        ],
        logging_dir=str(tmp_path / "logs"),
        tasks=1,
    ).run()
    kept = [text.encode() for text in texts if "sleeps" in text]
    assert 0 < len(kept) < len(texts)
    for folder in ("lines", "flat", "rows"):
        pack_some(
            tmp_path / f"{folder}_corpus",
            tmp_path / folder,
            append_end_of_document=False,
            shuffle_seed=None,
        )
        assert documents_of(tmp_path / f"{folder}_corpus") == kept, folder
