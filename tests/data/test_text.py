"""Text that is packed while it is read gives what packing first would give, at any place, whoever asks."""

import gzip
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megarc.config import build
from megarc.corpus import IndexedCorpus, PackRequest, PackSettings, pack
from megarc.corpus.packing.assemble import join_shards
from megarc.corpus.packing.shard import Shard
from megarc.corpus.streamed.folder import SectionFolder
from megarc.data import DataConfig, open_stream, part_of_step
from megarc.data.order import ENDLESS
from megarc.errors import UserError
from megarc.window import Window

WINDOW = Window(6, 10, 8)
SECTION = 1500  # bytes


def texts(count, seed=0):
    drawn = random.Random(seed)
    return [
        f"{number}:" + "".join(drawn.choices("abcdeé ", k=drawn.randrange(0, 200))) for number in range(count)
    ]


def write(path, lines):
    data = b"".join(orjson.dumps({"text": line, "n": 1}) + b"\n" for line in lines)
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(data))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """450 documents in files of several kinds, in several sections."""
    folder = tmp_path_factory.mktemp("text")
    for name, part in (("a.jsonl", 0), ("b.jsonl.gz", 1), ("c.jsonl.zst", 2)):
        write(folder / "in" / name, texts(450)[part::3])
    return folder


def opened(folder, cache, which="train", window=WINDOW, seed=0, workers=0, path="in", options=(), **keys):
    source = {"kind": "text", "path": str(folder / path), "tokenizer": "bytes"}
    source |= {"options": {"section": SECTION, **dict(options)}} | keys.pop("source", {})
    tree = {which: [source], "cache": str(cache), "workers": workers, **keys}
    return open_stream(build(DataConfig, tree, "test"), which, window, seed)


def all_of(stream, samples):
    """Tokens (and documents) of samples, read in bits of odd sizes."""
    found, at = [], samples.start
    while at < samples.stop:
        count = min(1 + at % 137, samples.stop - at)
        batch = stream.read(at, count)
        found.append(np.hstack([batch.tokens, *([] if batch.documents is None else [batch.documents])]))
        at += count
    return np.concatenate(found)


def shards_of(stream):
    return [Shard(path) for path in stream.sources[0].text._paths]


def test_its_shards_are_those_of_a_packing_job(folder, tmp_path):
    """Joined, they make the very corpus that packing first makes, byte for byte."""
    stream = opened(folder, tmp_path / "cache", which="valid")
    text = stream.sources[0].text
    assert len(text.text.sections) > 3
    join_shards(shards_of(stream), text.text.plan, tmp_path / "joined", 0.0, quiet=True)
    settings_ = PackSettings(append_end_of_document=True)
    pack(PackRequest([str(folder / "in")], tmp_path / "packed", "bytes", settings_, workers=0, quiet=True))
    for kind in ("bin", "idx"):
        assert (tmp_path / f"joined.{kind}").read_bytes() == (tmp_path / f"packed.{kind}").read_bytes()


def test_training_while_packing_reads_what_reading_after_packing_reads(folder, tmp_path):
    """Window for window, also across ends of sections, with documents; and no token of the text is missing."""
    after = opened(folder, tmp_path / "one", which="valid", documents="isolate")
    source = after.sources[0]
    tokens = np.concatenate([shard.tokens(0, shard.facts.tokens) for shard in shards_of(after)])
    lengths = np.concatenate([shard.records()["tokens"] for shard in shards_of(after)])
    documents = np.repeat(np.arange(len(lengths)), lengths)
    for k in range(0, len(source), 13):
        start = k * WINDOW.stride
        got = after.read(k, 1)
        np.testing.assert_array_equal(got.tokens[0], tokens[start : start + WINDOW.tokens])
        inside = documents[start : start + WINDOW.rows]
        jumps = np.diff(np.unique(inside, return_inverse=True)[1])
        np.testing.assert_array_equal(np.diff(got.documents[0]), jumps)
    packed = IndexedCorpus(packed_first(folder, tmp_path))
    assert Counter(tokens.tolist()) == Counter(np.asarray(packed.tokens).tolist())

    while_packing = opened(folder, tmp_path / "two", documents="isolate")
    assert not while_packing.sources[0].text.whole
    first = all_of(while_packing, range(len(source)))
    prepared = opened(folder, tmp_path / "one", documents="isolate")
    np.testing.assert_array_equal(first, all_of(prepared, range(len(source))))


def packed_first(folder, tmp_path):
    settings_ = PackSettings(append_end_of_document=True)
    pack(PackRequest([str(folder / "in")], tmp_path / "packed", "bytes", settings_, workers=0, quiet=True))
    return tmp_path / "packed"


@given(seed=st.integers(0, 99), c=st.integers(1, 40), r=st.integers(0, 30), data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_each_window_comes_once_an_epoch_in_its_section(folder, tmp_path_factory, seed, c, r, data):
    window = Window(r, c, data.draw(st.integers(1, c)))
    stream = opened(folder, folder / "shared", window=window, seed=seed)
    order, source = stream._order, stream.sources[0]
    assert len(stream) == ENDLESS
    source.text.require_all()
    count = len(source)
    assert count == window.count(source.text.ends[-1])
    epochs = [order.places(epoch * count, count).number for epoch in range(3)]
    for numbers in epochs:
        np.testing.assert_array_equal(np.sort(numbers), np.arange(count))
    assert len({tuple(numbers.tolist()) for numbers in epochs}) == 3
    ends = [window.count(end) for end in source.text.ends]
    np.testing.assert_array_equal(
        np.searchsorted(ends, epochs[0], side="right"), np.searchsorted(ends, np.arange(count), side="right")
    )


@given(ranks=st.sampled_from([1, 2, 3, 6]), step=st.integers(0, 60), data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_resuming_anywhere_on_any_number_of_ranks_reads_the_same(folder, tmp_path_factory, ranks, step, data):
    """From a cache as it is then, or from none: the state is a number."""
    cold = data.draw(st.booleans())
    cache = tmp_path_factory.mktemp("cache") if cold else folder / "shared"
    batch = 12
    whole = opened(folder, folder / "shared").read(step * batch, batch).tokens
    stream = opened(folder, cache)
    parts = [
        stream.read(first, count).tokens
        for rank in range(ranks)
        for first, count in part_of_step(step * batch, batch, rank, ranks, 2)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_packer_that_is_killed_loses_nothing_and_doubles_nothing(folder, tmp_path):
    reference = opened(folder, tmp_path / "calm")
    stream = opened(folder, tmp_path / "cache", workers=1)
    packer = stream.sources[0].text._packer
    os.kill(packer.pid, signal.SIGKILL)
    while packer.poll() is None:
        time.sleep(0.01)
    cache = stream.sources[0].text.folder.path
    for number in range(2, 8):  # as if it had got no further, in the middle of a shard
        for path in cache.glob(f"{number:08d}-*"):
            path.unlink()
    (cache / "00000002-0000-last.shard.partial").write_bytes(b"half a shard")
    reference.sources[0].text.require_all()
    count = len(reference.sources[0])
    np.testing.assert_array_equal(all_of(stream, range(count)), all_of(reference, range(count)))
    assert stream.sources[0].text._tries == 2
    stream.sources[0].text.close()


def test_two_readers_share_one_packer(folder, tmp_path):
    first = opened(folder, tmp_path / "cache", workers=1)
    second = opened(folder, tmp_path / "cache", workers=1)
    first.sources[0].text.require_all()
    second.sources[0].text.require_all()
    assert [stream.sources[0].text._tries for stream in (first, second)] in ([1, 0], [1, 1])
    np.testing.assert_array_equal(all_of(first, range(100, 200)), all_of(second, range(100, 200)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_schema_that_changes_half_way_ends_the_run_where_it_gets_there(tmp_path, workers):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "in").mkdir()
    for number in range(6):
        name = "text" if number < 4 else "body"
        table = pyarrow.table({name: [f"{number} " * 400] * 4})
        parquet.write_table(table, tmp_path / "in" / f"{number}.parquet", compression="none")
    options = {"shuffle_seed": None, "section": 4000}
    stream = opened(tmp_path, tmp_path / "cache", workers=workers, options=options)
    stream.read(0, 20)
    with pytest.raises(UserError, match=r"4\.parquet has no column 'text' \(it has: body\)"):
        all_of(stream, range(10000))
    stream.sources[0].text.close()


def test_bad_lines_count_as_they_do_in_packing(tmp_path):
    lines = texts(400)
    write(tmp_path / "in" / "a.jsonl", lines[:200])
    with (tmp_path / "in" / "a.jsonl").open("ab") as file:
        file.write(b'{"other": 1}\n')
    write(tmp_path / "in" / "b.jsonl", lines[200:])
    options = {"shuffle_seed": None, "max_bad": 1 / 300}
    stream = opened(tmp_path, tmp_path / "cache", which="valid", options=options)
    assert stream.sources[0].facts.documents == 400
    with pytest.raises(UserError, match=r"1 of \d+ lines or files are bad .*a\.jsonl, at \d+: no key 'text'"):
        opened(tmp_path, tmp_path / "cache", which="valid", options={**options, "max_bad": 1 / 500})


def test_what_cannot_be_read_is_said_at_the_start(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    cases = {
        "there is nothing to read": {"path": tmp_path / "empty"},
        "no such file": {"path": tmp_path / "missing"},
        r"there are only 0; make the window shorter": {"path": tmp_path / "blank.jsonl"},
        "no key 'body'": {"source": {"text": "body"}},
        "part of a text is not known": {"source": {"part": [0.0, 0.5]}},
        "needs a tokenizer": {"source": {"tokenizer": None}},
        "data.packing is best_fit": {"packing": "best_fit"},
        "options of a source of kind text": {"options": {"sections": 3}},
        "shuffle_seed.*greater than or equal to 0": {"options": {"shuffle_seed": -1}},
        "format.*'jsonl', 'json'": {"options": {"format": "csv"}},
        "data.locality": {"locality": {"block": 8, "mixed": 2}},
        "belong to a source of kind text": {"source": {"kind": "corpus", "options": {}}},
    }
    for number, (words, keys) in enumerate(cases.items()):
        with pytest.raises(UserError, match=words):
            opened(folder, tmp_path / f"cache{number}", **keys)


def test_a_disk_that_takes_neither_text_nor_the_reason_is_named(folder, tmp_path, capfd):
    """The packer's own words are on standard error then, once, and it is not taken for one that was killed."""
    name = opened(folder, tmp_path / "other").sources[0].text.folder.path.name
    for file in ("00000000-0000-last.shard", "failed.json"):
        # nothing is written under these names
        (tmp_path / "cache" / name / f"{file}.partial").mkdir(parents=True)
    with pytest.raises(UserError, match=r"why cannot be written to .* is the disk of data\.cache full"):
        opened(folder, tmp_path / "cache", workers=1)
    said = capfd.readouterr().err
    assert said.count("error: could not write") == 1 and "last.shard" in said and "Traceback" not in said


def test_a_cache_of_another_user_is_named(folder, tmp_path):
    name = opened(folder, tmp_path / "other").sources[0].text.folder.path.name
    # it cannot be opened, as a file without permission
    (tmp_path / "cache" / name / "lock").mkdir(parents=True)
    with pytest.raises(UserError, match=r"could not write .*lock"):
        opened(folder, tmp_path / "cache")


def test_a_file_that_changes_under_the_run_is_refused(tmp_path):
    path = write(tmp_path / "in" / "a.jsonl", texts(300))
    stream = opened(tmp_path, tmp_path / "cache")
    os.utime(path, ns=(1, 1))
    with pytest.raises(UserError, match=r"a\.jsonl has changed since the run began"):
        all_of(stream, range(10000))


def test_held_out_text_and_a_fixed_number_of_windows_are_counted_exactly(folder, tmp_path):
    whole = opened(folder, tmp_path, which="valid")
    tokens = len(IndexedCorpus(packed_first(folder, tmp_path)).tokens)
    assert len(whole) == WINDOW.count(tokens) == whole.sizes[0]
    some = opened(folder, tmp_path, source={"windows": 50})
    assert len(some.sources[0]) == 50 and Path(tmp_path).exists()


def test_text_of_an_object_store_is_read_by_its_url(folder, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/texts/a.jsonl", (folder / "in" / "a.jsonl").read_bytes())
    try:
        stored = opened(folder, tmp_path, which="valid", source={"path": "memory://texts/a.jsonl"})
        local = opened(folder, tmp_path, which="valid", path="in/a.jsonl")
        assert len(stored) == len(local)
        np.testing.assert_array_equal(all_of(stored, range(len(stored))), all_of(local, range(len(local))))
        changing = opened(folder, tmp_path / "new", source={"path": "memory://texts/a.jsonl"})
        content = store.cat("/texts/a.jsonl")
        store.pipe("/texts/a.jsonl", content[::-1])  # of the same size
        with pytest.raises(UserError, match=r"a\.jsonl has changed since the run began"):
            all_of(changing, range(10000))
    finally:
        store.rm("/texts", recursive=True)


def test_a_shard_of_another_plan_is_refused(folder, tmp_path):
    """Copied by hand, under a name that the reader looks for: it would be read as this text's."""
    other = opened(folder, tmp_path / "other", options={"end_of_document": False})
    mine = opened(folder, tmp_path / "mine")
    wanted = mine.sources[0].text.folder.path / shards_of(other)[0].path.name.replace(
        "00000000-", "00000001-"
    )
    wanted.write_bytes(shards_of(other)[0].path.read_bytes())
    with pytest.raises(UserError, match=r"is no part of section 1 .*remove it"):
        all_of(mine, range(10000))
    wanted.unlink()
    first = shards_of(mine)[0].path  # of this text, but another section
    wanted.write_bytes(first.read_bytes())
    with pytest.raises(UserError, match="is no part of section 1"):
        all_of(opened(folder, tmp_path / "mine"), range(10000))


def test_sections_of_a_dropped_engine_stay_for_the_run_that_reads_them(folder, tmp_path):
    """Its later sections would have other tokens, so it ends and says what to do; a new start packs all anew."""
    running = opened(folder, tmp_path)
    shards, before = shards_of(running), all_of(running, range(4))
    SectionFolder(running.sources[0].text.folder.path).drop()  # as another run's packer does
    np.testing.assert_array_equal(all_of(running, range(4)), before)
    with pytest.raises(UserError, match=r"not used any more\. Run the same command again"):
        all_of(running, range(10000))
    again = opened(folder, tmp_path)
    assert again.sources[0].text.folder.plain
    np.testing.assert_array_equal(all_of(again, range(4)), before)
    assert all(shard.path.exists() for shard in shards)
    assert {shard.path.parent for shard in shards_of(again)}.isdisjoint(shard.path.parent for shard in shards)
