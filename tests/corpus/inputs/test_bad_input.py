"""Bad lines and bad files: counted, located, named; never a hang, a traceback or a silent drop."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import orjson
import pytest
import zstandard

from megarc.corpus.inputs import split_files
from megarc.errors import UserError

from ..conftest import documents_of, pack_some, some_texts, write_lines

GOOD = b'{"text": "good"}\n'
BAD = [
    (b"{not json}\n", "malformed JSON"),
    (b'{"txet": "x"}\n', "no key 'text'"),
    (b'{"text": null}\n', "holds null"),
    (b'{"text": 7}\n', "holds a number"),
    (b'["text"]\n', "a list, not an object"),
    (b'{"text": "\xff"}\n', "bad UTF-8: byte 0xff at 10"),
    (b'{"text": "\\ud800"}\n', "surrogate"),
    (b'{"text": "cut of', "truncated last line"),
]


def rejects_of(prefix: Path) -> list[dict]:
    return [orjson.loads(line) for line in Path(f"{prefix}.rejects.jsonl").read_bytes().splitlines()]


def test_a_line_is_judged_by_the_key_that_is_read(tmp_path):
    odd = [
        b'{"text": "one", "score": NaN}',
        b'{"text": "two", "score": -Infinity, "title": "\\ud800"}',
        b'{"id": ' + b"9" * 5000 + b', "text": "three"}',
    ]
    path, same = tmp_path / "a.jsonl", tmp_path / "a.json"
    path.write_bytes(b"\n".join(odd))
    same.write_bytes(b"[" + b",".join(odd) + b"]")
    for source in (path, same):
        pack_some(tmp_path / "c", source, shuffle_seed=None)
        assert documents_of(tmp_path / "c") == [b"one", b"two", b"three"]


@pytest.mark.parametrize("limit", [1 << 20, 20])
def test_blank_lines_are_counted_and_are_no_mistake(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(split_files, "_piece_bytes", lambda inputs: limit)
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\n  \r\n" + GOOD + b"{\n" + b"\n\n")
    (manifest,) = pack_some(tmp_path / "c", path, max_bad=0.5)
    assert (manifest.documents, manifest.inputs[0].rejects) == (2, 1)
    assert [entry["line"] for entry in rejects_of(tmp_path / "c")] == [5]


def test_only_malformed_ends_are_truncated(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b'{"txt": "x"}')
    pack_some(tmp_path / "c", path, max_bad=0.5)
    assert [entry["reason"] for entry in rejects_of(tmp_path / "c")] == ["no key 'text'"]


@pytest.mark.parametrize("limit", [1 << 20, 40])
def test_bad_lines_are_located(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(split_files, "_piece_bytes", lambda inputs: limit)
    (tmp_path / "first.jsonl").write_bytes(GOOD * 3)
    data = b"".join(GOOD * 2 + line for line, _ in BAD)
    path = tmp_path / "bad.jsonl"
    path.write_bytes(data)
    (manifest,) = pack_some(tmp_path / "c", tmp_path / "first.jsonl", path, max_bad=0.5)
    assert (manifest.documents, manifest.inputs[1].rejects) == (3 + 2 * len(BAD), len(BAD))
    for number, (entry, (line, reason)) in enumerate(zip(rejects_of(tmp_path / "c"), BAD, strict=True)):
        assert (entry["file"], entry["line"]) == (str(path), 3 * number + 3)
        assert data[entry["byte"] :].startswith(line)
        assert reason in entry["reason"]


def test_too_many_bad_lines_end_the_job_but_are_listed(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD * 9 + b"{\n")
    with pytest.raises(UserError, match=r"1 of 10 .*bad\.jsonl, line 10: malformed"):
        pack_some(tmp_path / "c", path)
    assert len(rejects_of(tmp_path / "c")) == 1
    assert not Path(f"{tmp_path}/c.idx").exists()
    assert pack_some(tmp_path / "c", path, max_bad=0.1)[0].documents == 9
    path.write_bytes(GOOD * 9)
    pack_some(tmp_path / "c", path)
    assert not Path(f"{tmp_path}/c.rejects.jsonl").exists()


def test_a_hopeless_job_ends_early(tmp_path):
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(GOOD * 20000)
    with pytest.raises(UserError, match="stopped early"):
        pack_some(tmp_path / "c", path, json_key="body")


def test_compressions_and_formats_hold_the_samedocuments_of(tmp_path):
    texts = some_texts(200)
    plain = write_lines(tmp_path / "plain.jsonl", texts).read_bytes()
    as_list = json.dumps([{"text": text} for text in texts], indent=1).encode()
    frames = b"".join(zstandard.compress(plain[i : i + 1000]) for i in range(0, len(plain), 1000))
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(plain)
    files = {
        "a.jsonl.gz": gzip.compress(plain[:5000]) + gzip.compress(plain[5000:]),
        "b.jsonl.xz": lzma.compress(plain),
        "c.jsonl.bz2": bz2.compress(plain),
        "d.jsonl.zst": zstandard.compress(plain),
        "e.jsonl.zst": skippable + frames + skippable,
        "f.jsonl.zst": unsized,
        "g.json": as_list,
        "h.json.gz": gzip.compress(as_list),
        "i.json": plain,
        "j.jsonl": b"\xef\xbb\xbf" + plain,
        "k.jsonl": plain.replace(b"\n", b"\r\n"),
        "l.jsonl": plain[:-1],
        "m.json": json.dumps(texts).encode(),
    }
    expected = [text.encode() for text in texts]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        pack_some(tmp_path / "c", tmp_path / name, shuffle_seed=None)
        assert documents_of(tmp_path / "c") == expected, name


@pytest.mark.parametrize("limit", [900, 5000])
def test_frames_are_cut_at_any_place(tmp_path, monkeypatch, limit):
    """Frames end in the midst of lines; lines run over several frames."""
    monkeypatch.setattr(split_files, "_piece_bytes", lambda inputs: limit)
    plain = write_lines(tmp_path / "plain.jsonl", some_texts(200)).read_bytes()
    for step in (37, 500, 1001):
        frames = b"".join(zstandard.compress(plain[i : i + step]) for i in range(0, len(plain), step))
        (tmp_path / "framed.jsonl.zst").write_bytes(frames)
        pack_some(tmp_path / "a", tmp_path / "plain.jsonl")
        pack_some(tmp_path / "b", tmp_path / "framed.jsonl.zst")
        for suffix in ("bin", "idx"):
            assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2", "zst"])
def test_a_compressed_file_cut_short_is_named(tmp_path, suffix):
    plain = write_lines(tmp_path / "plain.jsonl", some_texts(3000)).read_bytes()
    compress = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstandard.compress}
    data = compress[suffix](plain)
    path = tmp_path / f"short.jsonl.{suffix}"
    for damaged in (
        data[: len(data) // 2],
        data[:-3],
        data[:9],
        data[:50] + b"\xff" * 20 + data[70:],
        b"plain",
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"short\.jsonl\.{suffix} is damaged"):
            pack_some(tmp_path / "c", path)
        assert not Path(f"{tmp_path}/c.idx").exists()


def test_what_is_not_text_is_named(tmp_path):
    binary = tmp_path / "picture.txt"
    for data, reason in [
        (bytes(range(256)), "NUL"),
        (b"\x89PNG\r\n", "0x89 at 0"),
        ("a\n".encode("utf-16"), "UTF-16"),
    ]:
        binary.write_bytes(data)
        with pytest.raises(UserError, match=rf"picture\.txt.*{reason}"):
            pack_some(tmp_path / "c", binary)


def test_text_files_aredocuments_of(tmp_path):
    folder = tmp_path / "src"
    (folder / "sub" / ".hidden").mkdir(parents=True)
    (folder / "a.py").write_text("x = 1\n")
    (folder / "sub" / "b.md").write_bytes("é\r\n".encode())
    (folder / "sub" / "c.txt.gz").write_bytes(gzip.compress(b"zipped"))
    (folder / "sub" / "skipped.png").write_bytes(b"\x89PNG")
    (folder / "sub" / ".hidden" / "d.py").write_text("hidden")
    (folder / "sub" / "test_e.py").write_text("test")
    said: list[str] = []
    pack_some(tmp_path / "c", folder, exclude=["test_*"], shuffle_seed=None, say=said.append)
    assert documents_of(tmp_path / "c") == [b"x = 1\n", "é\r\n".encode(), b"zipped"]
    assert any("1 of kind .png" in line and "1 excluded" in line for line in said)
    listing = tmp_path / "list.txt"
    listing.write_text(f"{folder}/a.py\n\n{folder}/sub/*.md\n")
    pack_some(tmp_path / "d", f"@{listing}", shuffle_seed=None)
    assert documents_of(tmp_path / "d") == [b"x = 1\n", "é\r\n".encode()]


@pytest.mark.parametrize("name", ["missing.jsonl", "*.nothing", "@missing.txt", "empty"])
def test_nothing_to_read_is_said(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no such file|no file fits|cannot read the list|nothing to read"):
        pack_some(tmp_path / "c", tmp_path / name if not name.startswith("@") else name)


@pytest.mark.parametrize("data", [b"", b"[]", b"  \n"])
def test_an_empty_corpus_is_said(tmp_path, data):
    (tmp_path / "e.json").write_bytes(data)
    with pytest.raises(UserError, match=r"would be empty|1 of 1 lines"):
        pack_some(tmp_path / "c", tmp_path / "e.json")


@pytest.mark.parametrize(
    "data",
    [b'[{"text": "a"}', b'[{"text": "a"} {"text": "b"}]', b'[{"text": }]', b"[] x", b'["\xff"]', b"[" * 9999],
)
def test_a_broken_list_is_named(tmp_path, data):
    (tmp_path / "e.json").write_bytes(data)
    with pytest.raises(UserError, match=r"e\.json"):
        pack_some(tmp_path / "c", tmp_path / "e.json")
