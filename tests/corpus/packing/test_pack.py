"""Packing: equal to the plain way of doing it, and to itself however the work is shared out."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import orjson
import pytest

from megarc.corpus import IndexedCorpus, IndexedWriter, join_parts, load_manifest, load_tokenizer
from megarc.corpus.indexed.digest import file_digest
from megarc.corpus.inputs import split_files
from megarc.corpus.packing import pack_piece as work_module
from megarc.corpus.packing.pack_piece import append_to_each
from megarc.corpus.tokenizer.train import train_tokenizer
from megarc.errors import UserError

from ..conftest import documents_of, pack_some, some_texts, write_lines


def files_of(prefix: Path) -> dict[str, str]:
    """Digest of each file of a corpus; the manifest without the names of its inputs."""
    digests = {suffix: file_digest(Path(f"{prefix}{suffix}")) for suffix in (".bin", ".idx")}
    tree = orjson.loads(Path(f"{prefix}.json").read_bytes())
    for file in tree["inputs"]:
        del file["name"]
    return digests | {".json": hashlib.sha256(orjson.dumps(tree)).hexdigest()}


def test_equals_the_plain_loop(tmp_path, lines):
    """One document after another, as Megatron's preprocess_data.py does: the same bytes."""
    train_tokenizer(some_texts(300), tmp_path / "t", 320)
    tokenizer = load_tokenizer(tmp_path / "t.model")
    with IndexedWriter(tmp_path / "plain", np.uint16) as writer:
        for line in lines.read_bytes().splitlines():
            ids = tokenizer.encode(orjson.loads(line)["text"]).tolist()
            writer.add(np.array([*ids, tokenizer.end_of_document] if ids else ids))
        writer.finish()
    pack_some(
        tmp_path / "ours",
        lines,
        tokenizer=str(tmp_path / "t.model"),
        append_end_of_document=True,
        shuffle_seed=None,
    )
    for suffix in (".bin", ".idx"):
        assert Path(f"{tmp_path}/ours{suffix}").read_bytes() == Path(f"{tmp_path}/plain{suffix}").read_bytes()


def test_does_not_depend_on_workers_parts_or_pieces(tmp_path, lines, monkeypatch):
    other = write_lines(tmp_path / "other.jsonl", some_texts(150)[::-1])
    for order in ({"shuffle_seed": 5}, {"shuffle_seed": None}, {"shuffle_seed": 5, "drop_duplicates": True}):
        results = []
        for limit, workers, parts, spill in [
            (1 << 20, 1, 1, 10**6),
            (2000, 2, 1, 500),
            (900, 1, 3, 2000),
            (5000, 2, 2, 99),
        ]:
            monkeypatch.setattr(split_files, "_piece_bytes", lambda inputs, limit=limit: limit)
            monkeypatch.setattr(work_module, "_TOKENS_A_SHARD", spill)
            prefix = tmp_path / f"c{len(results)}"
            for part in range(parts):
                pack_some(prefix, lines, other, workers=workers, part=(part, parts), **order)
            if parts > 1:
                join_parts(prefix, max_bad=0, quiet=True)
            tree = files_of(prefix)
            del tree[".json"]  # input digests need pieces of whole MiB
            results.append(tree)
            assert not Path(f"{prefix}.parts").exists()
        assert all(result == results[0] for result in results)


def test_manifest_does_not_depend_on_workers_or_parts(tmp_path, lines):
    other = write_lines(tmp_path / "other.jsonl", some_texts(9000))
    assert other.stat().st_size > 1.5e6  # two pieces
    pack_some(tmp_path / "a", lines, other)
    for part in range(2):
        pack_some(tmp_path / "b", lines, other, workers=2, part=(part, 2))
    join_parts(tmp_path / "b", max_bad=0, quiet=True)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_manifest_tells_the_truth(tmp_path, lines):
    (manifest,) = pack_some(tmp_path / "c", lines, append_end_of_document=True)
    corpus, texts = IndexedCorpus(tmp_path / "c"), some_texts(300)
    assert manifest == load_manifest(tmp_path / "c")
    assert (manifest.documents, manifest.tokens) == (300, len(corpus.tokens))
    assert manifest.text_bytes == sum(len(text.encode()) for text in texts)
    assert manifest.content_digest == corpus.digest
    assert manifest.tokenizer == load_tokenizer("bytes").facts()
    (file,) = manifest.inputs
    assert (file.bytes, file.documents, file.rejects) == (lines.stat().st_size, 300, 0)
    assert file.digest == hashlib.sha256(lines.read_bytes()).hexdigest()


def test_shuffle_is_a_permutation_that_the_seed_decides(tmp_path, lines):
    orders = []
    for seed in (None, 0, 1, 0):
        pack_some(tmp_path / "c", lines, shuffle_seed=seed)
        orders.append(documents_of(tmp_path / "c"))
    plain, first, second, again = orders
    assert plain == [text.encode() for text in some_texts(300)]
    assert first == again != second
    assert sorted(plain) == sorted(first) == sorted(second)
    # About uniform: neighbours of the input hardly stay neighbours.
    places = {text: place for place, text in enumerate(first)}
    distinct = [text for text in plain if plain.count(text) == 1]
    close = sum(abs(places[a] - places[b]) <= 1 for a, b in itertools.pairwise(distinct))
    assert close < 0.05 * len(distinct)


def test_duplicates_leave_the_first(tmp_path):
    first = write_lines(tmp_path / "1.jsonl", ["b", "a", "b", "", "c"])
    second = write_lines(tmp_path / "2.jsonl", ["c", "d", "a", "", "e"])
    (manifest,) = pack_some(tmp_path / "c", first, second, drop_duplicates=True, shuffle_seed=None)
    assert documents_of(tmp_path / "c") == [b"b", b"a", b"", b"c", b"d", b"e"]
    assert manifest.dropped == {"duplicate": 4}
    assert manifest.text_bytes == 5


def test_length_filters_count_bytes(tmp_path):
    path = write_lines(tmp_path / "1.jsonl", ["", "ab", "日", "abcd", "abcde"])
    (manifest,) = pack_some(tmp_path / "c", path, shortest=3, longest=4, shuffle_seed=None)
    assert documents_of(tmp_path / "c") == ["日".encode(), b"abcd"]
    assert manifest.dropped == {"too short": 2, "too long": 1}


def test_splits_go_by_the_document(tmp_path, lines):
    splits = {"train": 8.0, "valid": 1.0, "test": 1.0}
    names = list(splits)
    pack_some(tmp_path / "a", lines, splits=splits)
    before = {name: set(documents_of(tmp_path / f"a_{name}")) for name in names}
    more = write_lines(tmp_path / "more.jsonl", [f"new {i}" for i in range(500)])
    manifests = pack_some(tmp_path / "b", more, lines, splits=splits)
    after = {name: set(documents_of(tmp_path / f"b_{name}")) for name in names}
    assert all(before[name] <= after[name] for name in names)
    assert not after["train"] & (after["valid"] | after["test"])
    assert [manifest.settings.split for manifest in manifests] == names
    assert sum(manifest.documents for manifest in manifests) == 800
    assert 0.7 < manifests[0].documents / 800 < 0.9


@pytest.mark.parametrize(
    ("part", "message"), [((2, 2), "numbered from 0 to 1"), ((-1, 2), "numbered from 0 to 1")]
)
def test_no_such_part(tmp_path, lines, part, message):
    with pytest.raises(UserError, match=message):
        pack_some(tmp_path / "c", lines, part=part)


def test_a_tokenizer_that_encodes_nothing_is_an_error(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    empty = tokenizers.Tokenizer(tokenizers.models.BPE({"</s>": 0}, []))
    empty.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    empty.save(str(tmp_path / "tokenizer.json"))
    lines = write_lines(tmp_path / "lines.jsonl", ["some text"])
    with pytest.raises(UserError, match="makes no token of the 1 inputs"):
        pack_some(tmp_path / "c", lines, tokenizer=tmp_path / "tokenizer.json")
    assert not (tmp_path / "c.json").exists()
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"</s>": 0})).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"tokenizer.json cannot encode the text: .*UNK"):
        pack_some(tmp_path / "c", lines, tokenizer=tmp_path / "tokenizer.json")


def test_merge_refuses_what_is_missing_short_damaged_or_other(tmp_path, monkeypatch):
    monkeypatch.setattr(split_files, "_piece_bytes", lambda inputs: 2000)
    lines = write_lines(tmp_path / "lines.jsonl", some_texts(300))
    prefix, folder = tmp_path / "c", tmp_path / "c.parts"

    def refused(message):
        with pytest.raises(UserError, match=message):
            join_parts(prefix, max_bad=0, quiet=True)
        assert not Path(f"{prefix}.idx").exists()

    refused("no parts")
    pack_some(prefix, lines, part=(0, 3))
    pack_some(prefix, lines, part=(2, 3))
    refused("part-00001-of-00003")
    pack_some(prefix, lines, part=(1, 3), shuffle_seed=7)
    refused("other inputs or settings")
    (folder / "part-00001-of-00003.shard").unlink()
    pack_some(prefix, lines, part=(1, 3))
    damaged = folder / "part-00002-of-00003.shard"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    refused("part-00002-of-00003.shard is truncated")
    damaged.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    refused("part-00002-of-00003.shard is damaged")
    damaged.write_bytes(whole)
    join_parts(prefix, max_bad=0, quiet=True)
    pack_some(tmp_path / "d", lines)
    assert files_of(prefix)[".bin"] == files_of(tmp_path / "d")[".bin"]


@pytest.mark.parametrize("long", [0, 10**9])
def test_every_document_but_empty_ones_gets_its_end(monkeypatch, long):
    """The same by slices, as for long documents, and by a mask."""
    monkeypatch.setattr("megarc.corpus.packing.pack_piece._LONG", long)
    lengths = np.array([3, 0, 1, 0, 2], np.int32)
    tokens, longer = append_to_each(np.arange(1, 7, dtype=np.int32), lengths, 99)
    assert tokens.tolist() == [1, 2, 3, 99, 4, 99, 5, 6, 99] and tokens.dtype == np.int32
    assert longer.tolist() == [4, 0, 2, 0, 3]
    assert len(append_to_each(tokens[:0], lengths[:0], 99)[0]) == 0
