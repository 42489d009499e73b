"""Which files are read, and as what: by name where it tells, else by content; what is left out is counted."""

import bz2
import gzip
import io
import lzma
import tarfile

import pytest
import zstandard

from megarc.corpus.inputs.find_files import find_inputs
from megarc.errors import UserError

LINES = b'{"text": "one"}\n{"text": "two"}\n'
LONG = b'{"text": "' + b"x" * 100_000 + b'"}\n'


def tar():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"text"))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("part-00000", LINES, ("jsonl", "")),
        ("x.dat", LINES, ("jsonl", "")),
        ("items.jl", b'{"id": 1, "text": "one"}\n', ("jsonl", "")),
        ("items.jl", b"using Flux\nf(x) = x\n", ("text", "")),
        ("x.jsonl.bak", b"\xef\xbb\xbf" + LINES, ("jsonl", "")),
        ("part-00001", LONG, ("jsonl", "")),
        ("part-00002", b'"a string a line"\n"another"\n', ("jsonl", "")),
        ("list.dat", b'[\n  {"text": "one"}\n]', ("json", "")),
        ("part-00000.c000.zst", zstandard.compress(LINES), ("jsonl", "zst")),
        ("part-00000.c000", zstandard.compress(LINES), ("jsonl", "zst")),
        ("skip.dat", b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstandard.compress(LINES), ("jsonl", "zst")),
        ("x.jsonl.GZ", gzip.compress(LINES), ("jsonl", "gz")),
        ("x.jsonl.zstd", zstandard.compress(LINES), ("jsonl", "zst")),
        ("x.jsonl", gzip.compress(LINES), ("jsonl", "gz")),
        ("x.dat", lzma.compress(LINES), ("jsonl", "xz")),
        ("x.dat", bz2.compress(b"prose\n"), ("text", "bz2")),
        ("X.TXT", b"text", ("text", "")),
        ("notes", "prose, \u65e5\u672c".encode() * 20_000, ("text", "")),
        ("brackets", b"[chorus]\nla la\n", ("text", "")),
        ("rows.dat", b"PAR1" + bytes(40), ("parquet", "")),
        ("empty", b"", ("text", "")),
    ],
)
def test_a_file_is_read_as_what_it_holds(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    (found,), passed = find_inputs([str(path)])
    assert (found.format, found.compression) == expected and not passed


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.cpio", tar()),
        ("w.cpio.gz", gzip.compress(tar())),
        ("w.tgz", gzip.compress(tar())),
        ("rows.orc", b"ORC\0\0" + bytes(range(256))),
        ("text.dat", "a text\n".encode("utf-16")),
        ("one.dat", b'{\n  "text": "an object over several lines"\n}\n'),
        ("latin.dat", "caf\xe9 ".encode("latin-1") * 40),
    ],
)
def test_unknown_content_is_an_error_that_names_the_flag(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}.* --format"):
        find_inputs([str(path)])
    (found,), _ = find_inputs([str(path)], format="text")
    assert found.format == "text"


def test_folders_follow_links_once_and_count_what_they_leave_out(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data / ".cache", elsewhere / "deep"):
        folder.mkdir(parents=True)
    files = {
        data / "README.md": b"---\nlicense: mit\n---\n# A data set\n",
        data / "dataset_info.json": b"{}",
        data / "state.json": b"{}",
        data / "rows.orc": b"ORC",
        data / "old.jsonl.bak": LINES,
        data / "part-00000": LINES,
        data / "LICENSE": b"do what you want\n",
        data / ".cache" / "x.txt": b"hidden",
        elsewhere / "README.md": b"# Prose without keys is a document\n",
        elsewhere / "deep" / "b.txt": b"text",
    }
    for path, content in files.items():
        path.write_bytes(content)
    (data / "linked").symlink_to(elsewhere)
    (elsewhere / "deep" / "back").symlink_to(data)
    (data / "lost.txt").symlink_to(tmp_path / "nowhere")
    found, passed = find_inputs([str(data)])
    assert [file.name.removeprefix(f"{data}/") for file in found] == [
        "linked/README.md",
        "linked/deep/b.txt",
        "part-00000",
    ]
    assert passed == {
        "dataset cards": 3, "of kind .orc": 1, "of kind .bak": 1, "of kind LICENSE": 1,
        "hidden": 1, "folders linked twice": 1, "broken links": 1,
    }  # fmt: skip


def test_globs_reach_into_folders(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x.txt", "a/y.txt", "a/b/z.txt"):
        (tmp_path / name).write_bytes(b"text")

    def names(pattern):
        found, passed = find_inputs([f"{tmp_path}/{pattern}"])
        return [file.name.removeprefix(f"{tmp_path}/") for file in found], dict(+passed)

    everything = ["a/b/z.txt", "a/y.txt", "x.txt"]
    assert names("**") == (everything, {})
    assert names("**/*.txt") == (everything, {})
    assert names("*") == (["x.txt"], {"folders that a pattern fits": 1})


def test_a_glob_of_everything_leaves_out_what_a_hub_puts_beside_the_data(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "dataset_info.json").write_text("{}")
    for pattern in ("**", "*"):
        found, passed = find_inputs([str(tmp_path / pattern)])
        assert [file.path.name for file in found] == ["a.jsonl"]
        assert passed["dataset cards"] == 1
    named, _ = find_inputs([str(tmp_path / "*.json")])
    assert [file.path.name for file in named] == ["dataset_info.json"]


def test_a_glob_meets_each_file_once_whatever_links_lead_to_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_bytes(b"text")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")  # ``**`` follows it until the system says stop
    (tmp_path / "b").symlink_to(tmp_path / "a")
    found, passed = find_inputs([f"{tmp_path}/**/*.txt"])
    assert len(found) == 1 and passed["reached twice"] > 1
    assert len(find_inputs([f"{tmp_path}/a/x.txt", f"{tmp_path}/b/x.txt"])[0]) == 1
