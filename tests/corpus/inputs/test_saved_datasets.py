"""What datasets and webdataset write, read as it is."""

import io
import tarfile
from itertools import pairwise

import pytest
from corpus.conftest import documents_of, pack_some

from megarc.corpus.inputs.document_fields import Choice
from megarc.corpus.inputs.documents import read_span
from megarc.corpus.inputs.find_files import find_inputs
from megarc.corpus.inputs.split_files import cut
from megarc.errors import UserError

TEXTS = [f"document {number} " + "é" * (number % 7) for number in range(250)]


def tar_of(path, fields, cut_at=None):
    """A tar whose samples are ``fields`` (name, bytes), written by hand."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in fields:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(data.getvalue()[:cut_at])
    return path


def read(folder, *inputs, **more):
    pack_some(folder / "out", *inputs, shuffle_seed=None, **more)
    return documents_of(folder / "out")


def saved(folder, texts=TEXTS, **columns):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    made = datasets.Dataset.from_dict({"text": texts, **columns})
    made.save_to_disk(str(folder), num_shards=3)
    return folder


def test_a_saved_dataset_is_read_whole_and_in_spans(tmp_path):
    folder = saved(tmp_path / "saved", id=list(range(250)))
    assert read(tmp_path, folder) == [text.encode() for text in TEXTS]
    inputs, passed = find_inputs([str(folder)])
    assert [file.format for file in inputs] == ["arrow"] * 3 and passed["dataset cards"] == 2
    files = sorted(folder.glob("*.arrow"))
    assert read(tmp_path, files[1]) == [text.encode() for text in TEXTS[84:167]]


def test_batches_of_rows_are_spans_that_share_the_rows_out(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"n": list(range(250)), "text": TEXTS})
    with pyarrow.ipc.new_stream(tmp_path / "one.arrow", table.schema) as out:
        out.write_table(table, max_chunksize=16)
    inputs, _ = find_inputs([str(tmp_path / "one.arrow")])
    spans = [span for piece in cut(inputs, 2000) for span in piece]
    assert len(spans) > 3 and spans[0].groups[0] == 0 and spans[-1].groups[1] == 16
    assert all(a.groups[1] == b.groups[0] for a, b in pairwise(spans))
    found = [block for span in spans for block in read_span(inputs[0], span, Choice())]
    assert [text for block in found for text in block.texts] == TEXTS
    assert [offset for block in found for offset in block.offsets] == list(range(250))


def test_null_texts_are_bad_lines_and_a_cached_step_is_passed_over(tmp_path):
    folder = saved(tmp_path / "saved", texts=["a", None, "b"] + ["c"] * 30)
    (folder / "cache-0123.arrow").write_bytes((folder / "data-00000-of-00003.arrow").read_bytes())
    assert read(tmp_path, folder, max_bad=0.1) == [b"a", b"b"] + [b"c"] * 30
    assert find_inputs([str(folder)])[1]["arrow files that their dataset does not list"] == 1


def test_a_dataset_of_several_splits_names_them(tmp_path):
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(UserError, match=r"both holds several splits .*both/train or .*both/test"):
        read(tmp_path, tmp_path / "both")
    assert read(tmp_path, tmp_path / "both" / "train") == [b"a"]


def test_no_stream_and_a_missing_column_say_so(tmp_path):
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1\0\0" + bytes(64))
    with pytest.raises(UserError, match=r"bad\.arrow is not an arrow stream as datasets\.save_to_disk"):
        read(tmp_path, tmp_path / "bad.arrow")
    with pytest.raises(UserError, match=r"no column 'body' \(it has: text\)"):
        read(tmp_path, saved(tmp_path / "saved", texts=["a"] * 3), json_key="body")


def test_samples_of_a_tar_are_runs_of_one_key(tmp_path):
    fields = [
        ("a/0.txt", b"first"), ("a/0.jpg", bytes(2000)), ("a/1.x.txt", b"its field is x.txt"), ("a/1.TXT", b"second"),
        ("b/0.json", b'{"text": "third", "n": 1}'), ("b/1.json", b'{"n": 1}'), ("b/.hidden.txt", b"no key"),
        ("b/2.txt", b"\xff"), ("nothing", b"no field"),
    ]  # fmt: skip
    tar_of(tmp_path / "w.tar", fields)
    assert read(tmp_path, tmp_path / "w.tar", max_bad=1.0) == [b"first", b"second", b"third"]
    rejects = (tmp_path / "out.rejects.jsonl").read_text()
    assert "no key 'text'" in rejects and "bad UTF-8 at byte 0" in rejects and len(rejects.splitlines()) == 2


def test_webdataset_writes_what_is_read(tmp_path):
    webdataset = pytest.importorskip(
        "webdataset", reason="webdataset is not installed: pip install webdataset"
    )
    with webdataset.TarWriter(str(tmp_path / "w.tar.gz")) as out:
        for number, text in enumerate(TEXTS[:40]):
            out.write(
                {"__key__": f"s/{number:04d}", "txt": text, "json": {"body": text.upper()}, "cls": number}
            )
    assert read(tmp_path, tmp_path / "w.tar.gz") == [text.encode() for text in TEXTS[:40]]
    found = read(tmp_path, tmp_path / "w.tar.gz", json_key="body")
    assert found == [text.upper().encode() for text in TEXTS[:40]]


@pytest.mark.parametrize("cut_at", [700, 1300, None])
def test_a_damaged_tar_says_so(tmp_path, cut_at):
    fields = [(f"{number}.txt", b"x" * 600) for number in range(3)]
    path = tar_of(tmp_path / "w.tar", fields, cut_at)
    if cut_at is None:
        path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match=r"w\.tar is not a tar file, or it is damaged"):
        read(tmp_path, path)


def test_an_archive_among_the_files_of_a_folder_is_passed_over(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("kept")
    tar_of(tmp_path / "in" / "source.tar", [("p/setup.py", b"x"), ("p/x.tar.gz", b"y")])
    (tmp_path / "in" / "broken.tar").write_bytes(b"no tar" * 300)
    tar_of(tmp_path / "in" / "w.tar", [("0.jpg", b"x"), ("0.txt", b"sample")])
    assert read(tmp_path, tmp_path / "in") == [b"kept", b"sample"]
    assert find_inputs([str(tmp_path / "in")])[1]["of kind .tar"] == 2
