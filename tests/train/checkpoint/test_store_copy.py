"""A run's copy in a store: whole or not there, resumed where it broke off, pruned with care, brought back by digest."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from megarc import object_upload
from megarc.config import build
from megarc.errors import UserError
from megarc.train.checkpoint import layout, store_copy
from megarc.train.checkpoint.store_copy import StoreCopies, StoreCopy
from megarc.train.checkpoint.store_layout import COPYING, StoredCheckpoints
from megarc.train.checkpoint.store_restore import restore
from megarc.train.config import CheckpointConfig
from megarc.train.folder import RunFolder
from megarc.train.loop import Moment, Vote
from megarc.train.run_position import Standing
from megarc.train.schedule import Interval

fsspec = pytest.importorskip("fsspec")
URL = "memory://bucket/runs/a"


@pytest.fixture
def store(monkeypatch):
    """What was asked of the store, in order; ``fail`` holds names of objects that cannot be written."""
    monkeypatch.setattr(object_upload, "PAUSES", ())
    files = fsspec.filesystem("memory")
    kind = type(files)
    real_put, real_pipe = kind.put_file, kind.pipe_file
    files.asked, files.fail = [], set()

    def note(path):
        name = path.rpartition("/")[2]
        if any(path.endswith(end) for end in files.fail):
            raise OSError(16, "please reduce your request rate")
        files.asked.append(name)

    def put(self, local, path, **keys):
        note(path)
        return real_put(self, local, path, **keys)

    def pipe(self, path, content, **keys):
        note(path)
        return real_pipe(self, path, content, **keys)

    monkeypatch.setattr(kind, "put_file", put)
    monkeypatch.setattr(kind, "pipe_file", pipe)
    monkeypatch.setattr(object_upload, "filesystem", lambda url: files)
    monkeypatch.setattr("megarc.object_store.filesystem", lambda url: files)
    yield files
    if files.exists("/bucket"):
        files.rm("/bucket", recursive=True)


def run_folder(path, run="one"):
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True)
    folder.tokenizer.mkdir()
    (folder.tokenizer / "facts.json").write_text("{}")
    folder.environment.write_text(json.dumps({"run": run}))
    folder.config.write_text("seed: 1\n")
    folder.metrics.write_text('{"step": 1}\n{"step": 2}\n{"st')
    return folder


def checkpoint(folder, step, content="x"):
    place = layout.step_folder(folder.checkpoints, step)
    place.mkdir()
    for rank in range(2):
        tensors = place / f"{layout.rank_name(rank)}.safetensors"
        tensors.write_bytes(f"{content} of {step}, {rank}".encode())
        facts = {"tensors": tensors.name, "size": tensors.stat().st_size, "sha256": layout.digest_of(tensors)}
        (place / f"{layout.rank_name(rank)}.json").write_text(json.dumps({**facts, "fragments": []}))
    standing = Standing(step, 8 * step, order="o", sources=["s"], tokenizer=None)
    layout.write_manifest(place, range(2), standing, {"config": {}})
    return place


def copier(folder, keep=2, keep_every=None):
    return StoreCopy(URL, folder, keep, keep_every)


def whole():
    return [int(name[5:]) for name in StoredCheckpoints(URL).whole()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_fresh_host_gets_the_run_back(store, tmp_path):
    folder = run_folder(tmp_path / "a")
    saved = checkpoint(folder, 4)
    assert copier(folder)._round(last=True)
    assert store.asked.index("manifest.json") > max(
        store.asked.index(name) for name in contents(saved) if name != "manifest.json"
    )
    fresh = RunFolder(tmp_path / "b")
    restore(URL, fresh)
    assert contents(fresh.checkpoints / saved.name) == contents(saved)
    assert layout.latest(fresh.checkpoints).verify() is None
    assert (fresh.run, fresh.config.read_text()) == ("one", "seed: 1\n")
    assert fresh.metrics.read_text() == '{"step": 1}\n{"step": 2}\n'  # the half-written line stays behind
    assert (fresh.tokenizer / "facts.json").exists()
    before = contents(fresh.checkpoints / saved.name)
    restore(URL, fresh)  # nothing more to bring
    assert contents(fresh.checkpoints / saved.name) == before


def test_what_breaks_off_is_not_there_and_goes_on_where_it_was(store, tmp_path, caplog):
    folder = run_folder(tmp_path / "a")
    checkpoint(folder, 2)
    copy = copier(folder)
    assert copy._round()
    checkpoint(folder, 4)
    store.fail = {"step-000000004/rank-00001.safetensors"}
    assert not copy._round()
    assert whole() == [2] and "reduce your request rate" in copy.error
    assert "what is on the disk stays there" in caplog.text
    store.fail = {"step-000000004/manifest.json"}
    store.asked.clear()
    assert not copier(folder)._round()  # of a later job
    assert whole() == [2] and "rank-00000.safetensors" not in store.asked
    store.fail = set()
    assert copy._round() and copy.error is None and whole() == [2, 4]
    fresh = RunFolder(tmp_path / "b")
    restore(URL, fresh)
    assert layout.latest(fresh.checkpoints).standing.step == 4


def test_a_checkpoint_that_cannot_be_copied_does_not_hold_up_the_metrics(store, tmp_path, monkeypatch):
    folder = run_folder(tmp_path / "a")
    checkpoint(folder, 2)
    store.fail = {".safetensors"}
    assert not copier(folder)._round(last=True)
    assert store.exists("/bucket/runs/a/metrics.jsonl") and whole() == []
    monkeypatch.setattr(StoreCopy, "_copy_newest", lambda self: 1 / 0)  # a fault of ours
    copy = copier(folder)
    assert not copy._round() and "ZeroDivisionError" in copy.error


def test_another_checkpoint_of_the_same_step_replaces_all_of_it(store, tmp_path):
    one, other = run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    checkpoint(one, 4, "x")
    store.fail = {"rank-00001.safetensors"}
    assert not copier(one)._round()
    store.fail = set()
    saved = checkpoint(other, 4, "y")  # of the same sizes
    assert copier(other)._round()
    restore(URL, fresh := RunFolder(tmp_path / "c"))
    assert contents(fresh.checkpoints / saved.name) == contents(saved)
    again = run_folder(tmp_path / "d")
    saved = checkpoint(again, 4, "z")
    assert copier(again)._round()
    restore(URL, fresh := RunFolder(tmp_path / "e"))
    assert contents(fresh.checkpoints / saved.name) == contents(saved)


def test_the_store_keeps_what_the_keys_say_also_of_other_hosts(store, tmp_path):
    folder = run_folder(tmp_path / "a")
    for step in range(1, 8):
        checkpoint(folder, step)
        assert copier(folder, keep=2, keep_every=Interval(steps=3))._round()
        if step == 3:  # another host: nothing of the earlier ones is on its disk
            folder = run_folder(tmp_path / "b")
    assert whole() == [3, 6, 7]
    listed = StoredCheckpoints(URL).listed()
    assert list(listed) == ["step-000000003", "step-000000006", "step-000000007"]
    assert COPYING in listed["step-000000007"]


def test_a_checkpoint_that_the_disk_loses_meanwhile_is_copied_whole(store, tmp_path, monkeypatch):
    folder = run_folder(tmp_path / "a")
    saved = checkpoint(folder, 4)
    kept = contents(saved)
    real = StoreCopy._make_way

    def removes(self, name, manifest):
        for path in saved.iterdir():
            path.unlink()
        return real(self, name, manifest)

    monkeypatch.setattr(StoreCopy, "_make_way", removes)
    assert copier(folder)._round()
    restore(URL, fresh := RunFolder(tmp_path / "b"))
    assert contents(fresh.checkpoints / saved.name) == kept


def test_what_did_not_happen_is_removed(store, tmp_path):
    folder = run_folder(tmp_path / "a")
    copy = copier(folder, keep=9)
    for step in (2, 4, 6):
        saved = checkpoint(folder, step)
        assert copy._round()
    for path in saved.iterdir():
        path.unlink()
    watching = StoreCopies(copy, "continue")
    watching.start(None, Moment(4, 8, 32))  # of a job, whose disk may be behind the store
    assert copy._round() and whole() == [2, 4, 6]
    watching.start(None, Moment(4, 8, 32))  # after bad steps
    assert copy._round() and whole() == [2, 4]


def test_a_damaged_copy_is_passed_over(store, tmp_path, caplog):
    folder = run_folder(tmp_path / "a")
    for step in (2, 4):
        checkpoint(folder, step)
        assert copier(folder)._round()
    place = "/bucket/runs/a/checkpoints/step-000000004/rank-00001.safetensors"
    store.pipe(place, store.cat(place)[::-1])
    restored = restore(URL, fresh := RunFolder(tmp_path / "b"))
    restored.say()
    assert layout.latest(fresh.checkpoints).standing.step == 2
    assert "rank-00001.safetensors is damaged" in caplog.text
    assert [path.name for path in fresh.checkpoints.iterdir()] == ["step-000000002"]
    checkpoint(fresh, 4)  # the same, once more
    assert StoreCopy(URL, fresh, 2, None, list(restored.damaged))._round()
    assert restore(URL, again := RunFolder(tmp_path / "c")).damaged == {}
    assert layout.latest(again.checkpoints).verify() is None


def test_damage_everywhere_does_not_look_like_a_new_run(store, tmp_path):
    checkpoint(folder := run_folder(tmp_path / "a"), 2)
    assert copier(folder)._round(last=True)
    store.pipe("/bucket/runs/a/checkpoints/step-000000002/rank-00001.json", b"{}")
    with pytest.raises(UserError, match="every checkpoint in memory://bucket/runs/a is damaged"):
        restore(URL, RunFolder(tmp_path / "b"))


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "no space left"), PermissionError("ExpiredToken")])
def test_a_full_disk_or_a_refusal_is_no_damage(store, tmp_path, monkeypatch, problem):
    """Every checkpoint in the store was "damaged" then; the advice was to start anew."""
    folder = run_folder(tmp_path / "a")
    for step in (2, 4):
        checkpoint(folder, step)
        assert copier(folder)._round()
    old = run_folder(tmp_path / "b")
    checkpoint(old, 3)
    kept = contents(old.checkpoints / "step-000000003")

    def fails(self, url, local, **keys):
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "get_file", fails)
        words = "the disk is full" if problem.errno else "refuses .*step-000000004"
        with pytest.raises(UserError, match=words) as error:
            restore(URL, fresh := RunFolder(tmp_path / "c"))
        assert "damaged" not in str(error.value)
        restored = restore(URL, old)
    assert restored.damaged == {} and restored.away is not None and restored.brought is None
    assert contents(old.checkpoints / "step-000000003") == kept
    assert not list(tmp_path.rglob("*.partial"))
    assert "step-000000004" in restore(URL, fresh).brought and "step-000000004" in restore(URL, old).brought


def test_a_checkpoint_that_lost_a_file_is_passed_over(store, tmp_path):
    folder = run_folder(tmp_path / "a")
    for step in (2, 4):
        checkpoint(folder, step)
        assert copier(folder)._round()
    store.rm("/bucket/runs/a/checkpoints/step-000000004/rank-00001.json")
    restored = restore(URL, RunFolder(tmp_path / "b"))
    assert "step-000000002" in restored.brought
    assert restored.damaged == {"step-000000004": "rank-00001.json is not in the store"}


def test_names_in_a_store_lead_nowhere_else(store, tmp_path):
    folder = run_folder(tmp_path / "a")
    checkpoint(folder, 2)
    assert copier(folder)._round(last=True)
    store.store["/bucket/runs/a/tokenizer/../../../out"] = store.store["/bucket/runs/a/config.yaml"]
    fresh = RunFolder(tmp_path / "deep" / "er" / "b")
    restore(URL, fresh)
    assert fresh.config.exists() and not list(tmp_path.rglob("out"))
    manifest = "/bucket/runs/a/checkpoints/step-000000002/manifest.json"
    store.pipe(manifest, store.cat(manifest).replace(b"rank-00001.json", b"../../../x.json"))
    with pytest.raises(UserError, match="is damaged"):
        restore(URL, RunFolder(tmp_path / "other"))
    del store.store["/bucket/runs/a/tokenizer/../../../out"]


def test_an_older_disk_gets_the_newer_state(store, tmp_path):
    old, new = run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    checkpoint(old, 2)
    checkpoint(new, 4)
    new.metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    assert copier(new)._round(last=True)
    restore(URL, old)
    assert [path.name for path in layout.finished(old.checkpoints)] == ["step-000000002", "step-000000004"]
    assert old.metrics.read_text().count("\n") == 3


def test_another_run_is_not_mixed_in(store, tmp_path):
    assert copier(run_folder(tmp_path / "a"))._round(last=True)
    with pytest.raises(UserError, match="holds another run than"):
        restore(URL, run_folder(tmp_path / "b", run="two"))


def test_a_store_that_is_away_ends_only_a_run_that_has_nothing_else(store, tmp_path, monkeypatch, caplog):
    folder = run_folder(tmp_path / "a")
    checkpoint(folder, 2)
    assert copier(folder)._round(last=True)

    def away(url):
        raise UserError(f"the store refuses {url}")

    monkeypatch.setattr("megarc.train.checkpoint.store_restore.get_bytes", away)
    restore(URL, folder).say()
    assert "the run resumes from its own disk" in caplog.text
    with pytest.raises(UserError, match=r"checkpoint\.store: the store refuses"):
        restore(URL, RunFolder(tmp_path / "b"))


def test_a_new_run_whose_store_is_not_there_ends_before_its_first_step(store, tmp_path):
    folder = run_folder(tmp_path / "a")
    store.fail = {"environment.json"}
    with pytest.raises(UserError, match=r"checkpoint\.store: .*environment\.json"), copier(folder).running():
        pass
    checkpoint(folder, 2)
    with copier(folder).running() as copy:
        store.fail = set()
    assert copy.error is None and whole() == [2]


def test_the_end_waits_for_the_last_checkpoint_and_for_its_state(store, tmp_path):
    folder = run_folder(tmp_path / "a")
    with copier(folder).running():
        checkpoint(folder, 8)
        folder.state.write_text('{"state": "finished"}')
    assert whole() == [8]
    assert store.cat("/bucket/runs/a/state.json") == b'{"state": "finished"}'


def test_a_failed_copy_ends_the_run_where_a_key_says_so(store, tmp_path, monkeypatch):
    monkeypatch.setattr(store_copy, "gather_objects", lambda value, group: [None, value])
    folder = run_folder(tmp_path / "a")
    copy = copier(folder)
    checkpoint(folder, 2)
    store.fail = {"rank-00001.safetensors"}
    assert not copy._round()
    assert StoreCopies(copy, "continue").vote() is Vote.NOTHING
    strict, engine = StoreCopies(copy, "stop"), type("Engine", (), {"groups": _Groups()})()
    assert strict.vote() is Vote.LOOK
    with pytest.raises(UserError, match=r"(?s)reduce your request rate.*on the disk are whole"):
        strict.settled(engine, Moment(2, 8, 16, agreed=Vote.LOOK), [])
    store.fail = set()
    assert copy._round() and strict.vote() is Vote.NOTHING
    strict.settled(engine, Moment(2, 8, 16, agreed=Vote.LOOK), [])


class _Groups:
    world, first = None, True


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://me:secret@bucket/x", "credentials belong in the environment"),
        ("/tmp/x", "not the URL of an object store"),
        ("file:///tmp/x", "names a folder of this machine"),
    ],
)
def test_a_wrong_key_is_explained_without_its_secret(url, words):
    with pytest.raises(UserError, match=words) as error:
        build(CheckpointConfig, {"store": url}, "keys")
    assert "secret" not in str(error.value)


def test_this_process_holds_no_file_open(store, tmp_path):
    folder = run_folder(tmp_path / "a")
    checkpoint(folder, 2)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert copier(folder)._round(last=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
