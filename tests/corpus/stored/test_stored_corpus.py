"""A corpus in a store gives what the same corpus on a disk gives, whoever shares, kills, fills or loses the cache."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from megarc.config import build
from megarc.corpus import (
    IndexedCorpus,
    IndexedWriter,
    StoreCache,
    load_manifest,
    stored_tokenizer,
    verify,
)
from megarc.corpus.indexed.manifest import write_manifest
from megarc.corpus.packing.assemble import manifest_of
from megarc.corpus.stored import blocks as blocks_module
from megarc.corpus.stored.cache_folder import CacheFolder
from megarc.data import DataConfig, open_stream
from megarc.errors import UserError
from megarc.window import Window

fsspec = pytest.importorskip("fsspec")
URL = "memory://corpora/c"
WINDOW = Window(12, 8, 8)
KIB = 4  # of a block: 2048 tokens


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A corpus of 40,000 tokens, divided into questions and answers, with a manifest."""
    prefix = tmp_path_factory.mktemp("disk") / "c"
    random = np.random.default_rng(0)
    with IndexedWriter(prefix, np.uint16) as writer:
        for length in random.integers(2, 60, 1300).tolist():
            writer.add(random.integers(0, 5000, length), answers=[length // 2])
        written = writer.finish()
    write_manifest(prefix, manifest_of(written, prefix))
    return prefix


@pytest.fixture
def store(disk):
    """The same corpus at ``URL``; the fault that a request raises can be set."""
    files = fsspec.filesystem("memory")
    for path in disk.parent.iterdir():
        files.pipe(f"/corpora/{path.name}", path.read_bytes())
    yield files
    files.rm("/corpora", recursive=True)


def settings(folder, blocks=64, kib=KIB):
    return StoreCache(folder, blocks * kib << 10, kib << 10)


def opened(folder, **more):
    return IndexedCorpus(URL, cache=settings(folder, **more))


def stream(path, folder, keys=None, blocks=64, which="train"):
    cache = {"folder": str(folder), "gib": blocks * KIB / 2**20, "block_kib": KIB}
    tree = {which: [{"path": str(path)}], "store_cache": cache, **(keys or {})}
    return open_stream(build(DataConfig, tree, "the test"), which, WINDOW, 1)


def copies(folder):
    return [path for path in Path(folder).rglob("*") if path.parent != Path(folder) and path.is_file()]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"documents": "isolate"},
        {"packing": "best_fit"},
        {"train": [{"path": "PATH", "part": [0.25, 0.75]}, {"path": "PATH", "part": [0.8, 1], "windows": 9}]},
        {"locality": {"block": 50, "mixed": 4}},
    ],
    ids=["windows", "isolate", "packed", "blend of parts", "local shuffle"],
)  # fmt: skip
def test_the_same_batches_as_from_a_disk(disk, store, tmp_path, keys):
    def batches(path):
        own = {name: value for name, value in keys.items() if name != "train"}
        if "train" in keys:
            own["train"] = [{**one, "path": str(path)} for one in keys["train"]]
        found = stream(path, tmp_path / "cache", own)
        return [found.read(first, 64) for first in range(0, 2048, 64)], (found.order, found.digests)

    near, identity = batches(disk)
    far, same = batches(URL)
    assert identity == same
    for one, other in zip(near, far, strict=True):
        for name in ("tokens", "recent", "weights", "documents", "recent_end"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_slices_and_digests_are_those_of_the_disk(disk, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the cache of those without keys lies
    near, far = IndexedCorpus(disk), opened(tmp_path)
    assert (far.digest, far.facts, far.url, far.name) == (near.digest, near.facts, URL, URL)
    assert verify(URL) == verify(disk) == [] and load_manifest(URL) == load_manifest(disk)
    store.rm("/corpora/c.json")
    (plain := disk.with_name("plain.json")).unlink(missing_ok=True)
    for suffix in ("idx", "bin", "answers"):
        Path(f"{plain.with_suffix('')}.{suffix}").write_bytes(Path(f"{disk}.{suffix}").read_bytes())
    assert opened(tmp_path).digest == IndexedCorpus(plain.with_suffix("")).digest
    for part in (slice(0, 5), slice(2040, 2060), slice(-3, None), slice(100, 9000, 7), slice(7, 7)):
        np.testing.assert_array_equal(far.tokens[part], near.tokens[part])
    places = np.asarray([[5, 6, 39_000], [2047, 2048, 7]])  # as evaluation reads
    np.testing.assert_array_equal(far.tokens[places], near.tokens[places])
    np.testing.assert_array_equal(far.document(77), near.document(77))
    assert far.tokens[-1] == near.tokens[-1]
    with pytest.raises(UserError, match="copy the corpus to a disk"):
        np.asarray(far.tokens)


def test_the_cache_keeps_its_size_and_what_was_used_last(disk, store, tmp_path):
    far, near = opened(tmp_path, blocks=16), IndexedCorpus(disk)
    limit = settings(tmp_path, blocks=16).limit
    for start in np.random.default_rng(1).integers(0, 38000, 200).tolist():
        np.testing.assert_array_equal(far.tokens[start : start + 30], near.tokens[start : start + 30])
        assert sum(path.stat().st_size for path in copies(tmp_path)) <= limit
    recent = {path.name for path in copies(tmp_path) if path.suffix == ".block"}
    assert f"{start // 2048:08d}.block" in recent


def test_other_files_in_the_cache_folder_are_the_users(tmp_path):
    """data.store_cache.folder=/scratch/me: making room removed what lay in the folders there, the oldest first."""
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    for name in ("draft.txt", "left.partial"):
        (thesis / name).write_bytes(b"x" * 3000)
    cache = CacheFolder(tmp_path, 4000)
    folder = cache.folder("an object")
    for number in range(4):
        with cache.claim(folder / f"{number}.block", wait=True) as claim:
            claim.file.write(b"y" * 1500)
            cache.publish(claim)
    assert {path.name for path in thesis.iterdir()} == {"draft.txt", "left.partial"}
    assert [path.name for path in sorted(folder.iterdir())] == ["2.block", "3.block"] and cache.used() == 3000


def test_an_index_that_a_loss_of_power_cut_is_copied_again(disk, store, tmp_path):
    opened(tmp_path)
    small = [path for path in tmp_path.rglob("corpus.*") if path.suffix != ".partial"]
    assert {path.suffix for path in small} >= {".idx", ".json"}
    for path in small:
        path.write_bytes(b"")
    assert np.array_equal(opened(tmp_path).tokens[:50], IndexedCorpus(disk).tokens[:50])


def test_a_file_larger_than_the_cache_says_so(store, tmp_path):
    store.pipe("/corpora/c.json", b"x" * 100_000)
    with pytest.raises(UserError, match=r"data.store_cache.gib"):
        opened(tmp_path, blocks=16)


def test_a_changed_object_is_refused_and_nothing_of_it_is_kept(disk, store, tmp_path):
    far = opened(tmp_path)
    _ = far.tokens[:10]
    store.pipe("/corpora/c.bin", Path(f"{disk}.bin").read_bytes()[::-1])
    before = set(copies(tmp_path))
    with pytest.raises(UserError, match=r"c\.bin has changed since it was opened"):
        _ = far.tokens[30000:30010]
    assert set(copies(tmp_path)) == before
    store.rm("/corpora/c.bin")
    with pytest.raises(UserError, match=r"does not exist|has gone"):
        _ = far.tokens[30000:30010]


def test_another_version_has_a_cache_of_its_own(disk, store, tmp_path):
    _ = opened(tmp_path).tokens[:10]
    store.pipe("/corpora/c.bin", Path(f"{disk}.bin").read_bytes()[::-1])
    store.rm("/corpora/c.json")
    now = opened(tmp_path).tokens[:10]
    assert not np.array_equal(now, IndexedCorpus(disk).tokens[:10])


def test_processes_that_share_a_cache_read_right_and_ask_once(disk, store, tmp_path):
    """Forked after the store was filled, so each has the same one."""

    def reads(seed):
        far = opened(tmp_path, blocks=64)
        near = IndexedCorpus(disk)
        for start in np.random.default_rng(seed).integers(0, 38000, 100).tolist():
            if not np.array_equal(far.tokens[start : start + 900], near.tokens[start : start + 900]):
                return -1
        return far.tokens.blocks.fetched

    fetched = [join(child) for child in [fork(lambda seed=seed: reads(seed)) for seed in range(3)]]
    assert -1 not in fetched
    kept = sum(path.stat().st_size for path in copies(tmp_path) if path.suffix == ".block")
    assert sum(fetched) == kept > 70_000, "some block was fetched twice"


def test_a_killed_writer_leaves_nothing_that_counts(disk, store, tmp_path, monkeypatch):
    far = opened(tmp_path)
    real = CacheFolder.publish

    def killed(self, claim):
        claim.file.flush()
        claim.file.truncate(100)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(CacheFolder, "publish", killed)
    assert join(fork(lambda: len(far.tokens[:10]))) == -signal.SIGKILL
    monkeypatch.setattr(CacheFolder, "publish", real)
    left = [path for path in copies(tmp_path) if path.suffix == ".partial"]
    assert left
    np.testing.assert_array_equal(far.tokens[:10], IndexedCorpus(disk).tokens[:10])
    assert not [path for path in copies(tmp_path) if path.suffix == ".partial"]


def test_waiters_go_on_when_the_one_that_fetches_is_killed(disk, store, tmp_path):
    """A child holds the right to fetch block 0 and dies with it; this process waits for it, and then fetches."""
    far = opened(tmp_path)
    path = far.prefix.parent / "00000000.block"
    ready, told = os.pipe()

    def holds():
        with far.tokens.blocks.cache.claim(path, wait=True):
            os.write(told, b"x")
            time.sleep(60)
        return 0

    child = fork(holds)
    os.read(ready, 1)
    threading.Timer(0.2, os.kill, (child[0], signal.SIGKILL)).start()
    np.testing.assert_array_equal(far.tokens[:10], IndexedCorpus(disk).tokens[:10])
    assert join(child) == -signal.SIGKILL


def test_a_block_of_the_wrong_size_is_fetched_again(disk, store, tmp_path):
    _ = opened(tmp_path).tokens[:10]
    block = next(tmp_path.rglob("*.block"))
    block.write_bytes(block.read_bytes()[:50])
    np.testing.assert_array_equal(opened(tmp_path).tokens[:10], IndexedCorpus(disk).tokens[:10])


@pytest.mark.timeout(60)
def test_blocks_that_are_there_and_cannot_be_opened_come_from_the_store(disk, store, tmp_path, monkeypatch):
    """A process with too many open files looked for them again and again, without an end."""
    corpus, expected = opened(tmp_path), IndexedCorpus(disk).tokens[3000:9000]
    assert np.array_equal(corpus.tokens[3000:9000], expected)
    monkeypatch.setattr(blocks_module.Blocks, "_map", lambda self, number: None)
    assert np.array_equal(opened(tmp_path).tokens[3000:9000], expected)


def test_what_is_announced_is_there_when_it_is_read(disk, store, tmp_path):
    far = stream(URL, tmp_path)
    assert far.far and not stream(disk, tmp_path).far
    blocks = far.sources[0]._rows._tokens.blocks
    far.announce(0, 256)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.block"))) < 40000 // 2048 and time.monotonic() < deadline:
        time.sleep(0.01)
    before = blocks.fetched
    batch = far.read(0, 256)
    assert blocks.fetched == before > 0
    np.testing.assert_array_equal(batch.tokens, stream(disk, tmp_path).read(0, 256).tokens)


def test_a_cache_that_cannot_be_written_is_done_without(disk, store, tmp_path, monkeypatch, caplog):
    far = opened(tmp_path)

    def full(self, claim):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CacheFolder, "publish", full)
    for start in (0, 5000, 0, 30000):
        np.testing.assert_array_equal(
            far.tokens[start : start + 30], IndexedCorpus(disk).tokens[start : start + 30]
        )
    assert [record.message for record in caplog.records if "No space left" in record.message][1:] == []
    assert "No space left" in caplog.text


def test_what_the_store_says_when_it_fails_reaches_the_user(store, tmp_path, monkeypatch):
    far = opened(tmp_path)

    def refuses(url, ranges):
        raise UserError(f"the store refuses {url}")

    monkeypatch.setattr(blocks_module, "read_ranges", refuses)
    far.tokens.announce(np.asarray([0]), 10)  # never raises
    with pytest.raises(UserError, match=r"the store refuses memory://corpora/c\.bin"):
        _ = far.tokens[:10]


def test_the_tokenizer_beside_a_corpus_comes_along(store, tmp_path):
    """The one with the digest, with what Hugging Face keeps beside it; another of such a name does not."""
    right = b'{"right": true}'
    digest = hashlib.sha256(right).hexdigest()
    url = settings(tmp_path)
    assert stored_tokenizer(URL, digest, url) is None
    store.pipe("/corpora/a-tokenizer.json", b"{}")
    store.pipe("/corpora/tokenizer/tokenizer.json", right)
    store.pipe("/corpora/tokenizer/tokenizer_config.json", b'{"eos_token": "x"}')
    found = stored_tokenizer(URL, digest, url)
    assert found.read_bytes() == right
    assert sorted(path.name for path in found.parent.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    store.rm("/corpora/tokenizer", recursive=True)
    assert stored_tokenizer(URL, digest, url) == found


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://corpora/nowhere", r"no such corpus: memory://corpora/nowhere .*nowhere\.idx"),
        ("s3://me:word@corpora/c", "credentials belong in the environment"),
        ("nfs4://corpora/c", "no store that fsspec knows"),
    ],
)
def test_a_wrong_url_is_explained(store, tmp_path, url, words):
    with pytest.raises(UserError, match=words) as error:
        IndexedCorpus(url, cache=settings(tmp_path))
    assert "word@" not in str(error.value)


def test_a_damaged_index_is_named_by_its_url(store, tmp_path):
    store.pipe("/corpora/c.idx", b"not an index of any corpus at all, though long enough")
    with pytest.raises(UserError, match=r"^memory://corpora/c\.idx is not an index"):
        opened(tmp_path)


def test_a_cache_of_more_bytes_than_a_number_holds_is_refused():
    """A manifest of the fuzzer ended in a traceback: 1e308 GiB are infinitely many bytes."""
    with pytest.raises(UserError, match=r"store_cache\.gib.*less than or equal to"):
        build(DataConfig, {"store_cache": {"gib": 1e308}}, "keys")


def test_too_small_a_cache_is_refused():
    with pytest.raises(UserError, match="fewer than 16 blocks"):
        build(DataConfig, {"store_cache": {"gib": 0.001}}, "keys")
    keys = DataConfig().store_cache
    assert StoreCache() == StoreCache(keys.folder, keys.limit, keys.block)


def fork(work):
    """A child that writes what ``work`` returns to a pipe: (process, pipe)."""
    told, tells = os.pipe()
    child = os.fork()
    if not child:
        code = 255
        try:
            os.write(tells, str(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(tells)
    return child, told


def join(started):
    """What a child's work returned, or the negative signal that ended it."""
    child, told = started
    with os.fdopen(told) as pipe:
        words = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return int(words)
