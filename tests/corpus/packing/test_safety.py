"""Kills, dead workers, full disks, rivals: what is whole stays whole, and the same command resumes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megarc.corpus import IndexedCorpus, load_manifest
from megarc.corpus.inputs import split_files
from megarc.corpus.packing import pack as packing
from megarc.corpus.packing import workers
from megarc.corpus.packing.work_folder import locked
from megarc.errors import UserError

from ..conftest import pack_some, some_texts, write_lines

ROOT = Path(__file__).parents[3]


def command(lines: Path, prefix: Path, *more: str) -> list[str]:
    tool = [sys.executable, str(ROOT / "data_tools" / "preprocess.py"), "--input", str(lines)]
    return [*tool, "--output-prefix", str(prefix), "--tokenizer-model", "bytes", "--append-eod", *more]


def start(*arguments, **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(*arguments), env=environment, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """3 MB: three pieces or more."""
    return write_lines(tmp_path_factory.mktemp("big") / "big.jsonl", some_texts(18000))


@pytest.fixture(scope="module")
def expected(big):
    pack_some(big.parent / "expected", big, append_end_of_document=True)
    return {suffix: (big.parent / f"expected{suffix}").read_bytes() for suffix in (".bin", ".idx", ".json")}


def whole(prefix: Path, expected: dict[str, bytes]) -> bool:
    """Whether the corpus is there; if it is, it must be right."""
    if load_manifest(prefix) is None:
        return False
    assert all(Path(f"{prefix}{suffix}").read_bytes() == content for suffix, content in expected.items())
    return True


def test_kills_leave_nothing_or_a_whole(tmp_path, big, expected):
    """SIGKILL of the packer's process at random moments; its workers go with it, its work is gone on with."""
    chance = random.Random(5)
    prefix = tmp_path / "c"
    for _ in range(4):
        packer = start(big, prefix, "--workers", "2")
        time.sleep(chance.uniform(0.1, 0.6))
        packer.kill()
        packer.communicate()
        whole(prefix, expected)
    last = start(big, prefix, "--workers", "2")
    _, said = last.communicate(timeout=60)
    assert last.returncode == 0, said
    assert whole(prefix, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.bin", "c.idx", "c.json"]


def test_work_is_gone_on_with(tmp_path, big, expected, monkeypatch):
    """A job that fails at its third piece keeps two, and does not pack them again."""
    done: list[int] = []
    real = packing.pack_piece

    def failing(job, piece, tell):
        if len(done) == 2:
            raise UserError("the lights went out")
        done.append(piece)
        real(job, piece, tell)

    monkeypatch.setattr(packing, "pack_piece", failing)
    with pytest.raises(UserError, match="lights"):
        pack_some(tmp_path / "c", big, append_end_of_document=True)

    def noting(job, piece, tell):
        done.append(piece)
        real(job, piece, tell)

    monkeypatch.setattr(packing, "pack_piece", noting)
    said: list[str] = []
    pack_some(tmp_path / "c", big, append_end_of_document=True, say=said.append)
    assert any("resuming: 2 of" in line for line in said)
    assert len(done) == len(set(done))
    assert whole(tmp_path / "c", expected)


def test_other_settings_or_inputs_do_not_reuse_old_work(tmp_path, monkeypatch):
    lines = write_lines(tmp_path / "lines.jsonl", some_texts(50))
    real = packing.join_shards

    def failing(*arguments, **options):
        raise UserError("not today")

    for change in ("settings", "input"):
        monkeypatch.setattr(packing, "join_shards", failing)
        with pytest.raises(UserError, match="today"):
            pack_some(tmp_path / "c", lines)
        monkeypatch.setattr(packing, "join_shards", real)
        if change == "input":
            write_lines(lines, some_texts(50)[::-1])
        pack_some(tmp_path / "c", lines, append_end_of_document=change == "settings")
        pack_some(tmp_path / "d", lines, append_end_of_document=change == "settings")
        assert Path(f"{tmp_path}/c.bin").read_bytes() == Path(f"{tmp_path}/d.bin").read_bytes()


def test_a_dead_worker_is_reported_with_its_input(tmp_path, big, monkeypatch):
    real = packing.pack_piece

    def dying(job, piece, tell):
        if piece == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        real(job, piece, tell)

    monkeypatch.setattr(packing, "pack_piece", dying)
    with pytest.raises(UserError, match=r"died \(killed by SIGKILL.*big\.jsonl, bytes 1048576 to 2097152"):
        pack_some(tmp_path / "c", big, workers=2)


def test_a_bug_in_a_worker_is_no_users_mistake(tmp_path, big, monkeypatch):
    monkeypatch.setattr(packing, "pack_piece", lambda *arguments: 1 / 0)
    with pytest.raises(RuntimeError, match=r"(?s)big\.jsonl, bytes .*ZeroDivisionError"):
        pack_some(tmp_path / "c", big, workers=2)


@pytest.mark.parametrize("kilobytes", [4, 300, 3500])
def test_a_full_disk_is_said_and_the_old_corpus_stays(tmp_path, big, expected, kilobytes):
    """The size limit of a process stands for the disk's: in the first shard, in a later one, in the merge."""
    prefix = tmp_path / "c"
    for suffix, content in expected.items():
        Path(f"{prefix}{suffix}").write_bytes(content)
    tool = " ".join(command(big, prefix, "--shuffle-seed", "9"))
    limited = ["bash", "-c", f"trap '' XFSZ; ulimit -f {kilobytes}; exec {tool}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    failed = subprocess.run(limited, capture_output=True, text=True, timeout=60, env=environment)
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "error: could not write" in failed.stderr
    assert whole(prefix, expected)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_really_full_disk(tmp_path, big, expected):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        with pytest.raises(UserError, match=r"the disk is full.*run the same command again"):
            pack_some(disk / "c", big, append_end_of_document=True)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        pack_some(disk / "c", big, append_end_of_document=True)
        assert whole(disk / "c", expected)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_rival_is_refused(tmp_path, big, monkeypatch):
    monkeypatch.setattr("megarc.corpus.packing.work_folder._PATIENCE", 0.2)
    folder = tmp_path / "c.parts" / "part-00000-of-00001"
    folder.mkdir(parents=True)
    with locked(folder / "lock"), pytest.raises(UserError, match="another packer is at work"):
        pack_some(tmp_path / "c", big)
    pack_some(tmp_path / "c", big)


def test_what_cannot_be_written_is_said(tmp_path, big):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not write"):
        pack_some(tmp_path / "file" / "c", big)


def test_standard_input(tmp_path, big, expected):
    with big.open("rb") as stream:
        packer = start("-", tmp_path / "c", "--workers", "2", stdin=stream)
        _, said = packer.communicate(timeout=60)
    assert packer.returncode == 0, said
    assert (tmp_path / "c.bin").read_bytes() == expected[".bin"]
    manifest = load_manifest(tmp_path / "c")
    assert manifest is not None and manifest.inputs[0].digest is None


def test_memory_stays_flat(tmp_path, monkeypatch):
    """One stream that cannot be cut spills its shards: no more than a few of them in memory."""
    import gzip
    import tracemalloc

    monkeypatch.setattr("megarc.corpus.packing.pack_piece._TOKENS_A_SHARD", 200_000)
    monkeypatch.setattr("megarc.corpus.packing.merge._TOKENS_AT_ONCE", 200_000)
    path = tmp_path / "big.jsonl.gz"
    path.write_bytes(gzip.compress(write_lines(tmp_path / "plain.jsonl", some_texts(30000)).read_bytes(), 1))
    monkeypatch.setattr(split_files, "BIGGEST_PIECE", 1000)
    said: list[str] = []
    tracemalloc.start()
    pack_some(tmp_path / "c", path, say=said.append)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert any("cannot be cut" in line for line in said)
    assert len(IndexedCorpus(tmp_path / "c").tokens) > 4_000_000
    assert peak < 30e6


def test_workers_that_retire_after_each_piece_pack_the_same(tmp_path, big, expected, monkeypatch):
    monkeypatch.setattr(packing, "_MOST_MEGABYTES", 0)
    monkeypatch.setattr(workers, "_LEAST_GROWTH", 0)
    pack_some(tmp_path / "c", big, append_end_of_document=True, workers=2)
    assert whole(tmp_path / "c", expected)
