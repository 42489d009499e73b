"""Runs whose corpora and copies lie in a real S3 server: as from a disk, through faults, onto a fresh host."""

import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from support.ranks import run_jobs

from megarc import object_upload
from megarc.errors import UserError

from .faulty_store import faulty_store

MISSING = [name for name in ("moto", "s3fs") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"pip install 'megarc[s3]' 'moto[server]': no {MISSING}"
)
BUCKET = "s3://runs"
SECRET = "a-secret-of-mine"
STEPS = 6


@pytest.fixture(scope="module")
def store():
    import boto3

    with faulty_store() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "some-key"), ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_ENDPOINT_URL", running.endpoint),
        ):  # fmt: skip
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="runs")
        yield running


@pytest.fixture(autouse=True)
def whole_again(store):
    store.where, _ = "", (store.faults.clear(), store.requests.clear())


@pytest.fixture(scope="module")
def corpus(store, tmp_path_factory):
    """Questions and answers in bytes, on the disk and in the bucket."""
    from megarc.corpus import IndexedWriter
    from megarc.corpus.indexed.manifest import write_manifest
    from megarc.corpus.packing.assemble import manifest_of

    prefix = tmp_path_factory.mktemp("corpus") / "c"
    random = np.random.default_rng(0)
    with IndexedWriter(prefix, np.uint16) as writer:
        for length in random.integers(4, 60, 800).tolist():
            writer.add(random.integers(0, 250, length), answers=[length // 2])
        written = writer.finish()
    write_manifest(prefix, manifest_of(written, prefix))
    for path in prefix.parent.iterdir():
        object_upload.put_file(f"{BUCKET}/{path.name}", path, path.stat().st_size)
    return prefix


@pytest.fixture(scope="module")
def runs(store, corpus, tmp_path_factory):
    """On two ranks: each run from the disk and from the store; one in two parts, the second on a fresh host."""
    folder = tmp_path_factory.mktemp("runs")

    def job(name, path, length=STEPS, **changes):
        tree = {
            "folder": str(folder / name), "length": f"{length} steps", "device": "cpu",
            "window": {"recent": 12, "causal": 12, "stride": 12},
            "model": {"layers": 2, "hidden": 32, "heads": 4, "vocabulary": 256},
            "data": {
                "train": [{"path": f"{path}", "part": [0, 0.9]}],
                "valid": [{"path": f"{path}", "part": [0.9, 1]}],
                "store_cache": {"folder": str(folder / "cache"), "gib": 0.001, "block_kib": 4},
            },
            "batch": {"size": 8, "micro": 2}, "schedule": {"kind": "constant"},
            "validation": {"every": "3 steps", "windows": 5}, "checkpoint": {"every": "2 steps"},
            "logging": {"every": 1, "tensorboard": False, "peak_flops": 1e12},
            "health": {"self_check": "off"},
        }  # fmt: skip
        for dotted, value in changes.items():
            group, name = dotted.split("__")
            tree.setdefault(group, {})[name] = value
        return {"do": "pretrain", "config": tree}

    url = f"{BUCKET}/c"
    copied = {"checkpoint__store": f"{BUCKET}/copies/a"}
    jobs = [job("disk", corpus), job("store", url, 4, **copied), job("fresh", url, **copied)]
    for name, changes in (
        ("context", {"parallel__context": 2, "data__documents": "isolate", "data__valid": []}),
        (
            "pipeline",
            {"parallel__pipeline": 2, "parallel__zero": 1, "data__packing": "best_fit", "data__valid": []},
        ),
    ):
        jobs += [job(f"{name}-disk", corpus, 2, **changes), job(f"{name}-store", url, 2, **changes)]
    store.where, store.faults["busy"], store.faults["cut"] = "c.bin", 1, 1
    run_jobs(jobs, 2, folder, timeout=400)
    assert not +store.faults
    return folder


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["train/nats_per_token"]) for line in lines if "train/nats_per_token" in line]


def test_a_run_in_the_store_goes_on_on_a_fresh_host_as_if_it_had_stayed_on_a_disk(runs, store):
    from support.runs import full_state

    assert losses(runs / "fresh") == losses(runs / "disk")
    there = full_state(runs / "disk")
    assert all((values == there[name]).all() for name, values in full_state(runs / "fresh").items())
    assert "step-000000004 was brought from s3://runs/copies/a" in (runs / "fresh/log.txt").read_text()
    listed = object_upload.names_below(f"{BUCKET}/copies/a")
    assert "checkpoints/step-000000006/manifest.json" in listed and "metrics.jsonl" in listed
    state = json.loads(object_upload.get_bytes(f"{BUCKET}/copies/a/state.json"))
    assert (state["state"], state["step"]) == ("finished", STEPS)


@pytest.mark.parametrize("name", ["context", "pipeline"])
def test_context_ranks_pipelines_and_packed_rows_read_the_same_from_a_store(runs, name):
    assert losses(runs / f"{name}-store") == losses(runs / f"{name}-disk") != []


def test_secrets_are_nowhere(runs, store):
    for path in runs.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    for name in object_upload.names_below(f"{BUCKET}/copies/a"):
        assert SECRET.encode() not in object_upload.get_bytes(f"{BUCKET}/copies/a/{name}")


def test_a_token_that_expires_ends_reading_with_a_sentence(corpus, store, tmp_path):
    from megarc.corpus import IndexedCorpus, StoreCache

    cache = StoreCache(tmp_path, 1 << 20, 4096)
    far = IndexedCorpus(f"{BUCKET}/c", cache=cache)
    store.where, store.faults["expired"] = "c.bin", 100
    with pytest.raises(UserError, match=r"store refuses s3://runs/c\.bin: .*are the credentials right"):
        _ = far.tokens[:10]
    store.faults.clear()
    np.testing.assert_array_equal(far.tokens[:10], IndexedCorpus(corpus).tokens[:10])


def test_a_killed_copy_is_not_there_and_goes_on_where_it_was(runs, store, monkeypatch):
    """The copy of the finished run to another place, killed in its middle; then a token expires; then it works."""
    from megarc.train.checkpoint.store_copy import StoreCopy
    from megarc.train.checkpoint.store_layout import StoredCheckpoints
    from megarc.train.folder import RunFolder

    monkeypatch.setattr(object_upload, "PAUSES", ())
    url, folder = f"{BUCKET}/copies/b", RunFolder(runs / "disk")
    store.where, store.faults["slow"] = "rank-00001.safetensors", 1
    child = os.fork()
    if not child:
        StoreCopy(url, folder, 2, None)._round()
        os._exit(1)
    deadline = time.monotonic() + 60
    while not any(path.endswith(store.where) for path in list(store.requests)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert StoredCheckpoints(url).whole() == []
    store.faults.clear()
    store.faults["expired"] = 1000
    copy = StoreCopy(url, folder, 2, None)
    assert not copy._round() and SECRET not in copy.error
    assert "rank-00001.safetensors" in copy.error
    assert StoredCheckpoints(url).whole() == []
    store.faults.clear()
    assert copy._round(last=True)
    assert StoredCheckpoints(url).whole() == ["step-000000006"]
    there = f"{url}/checkpoints/step-000000006/rank-00001.safetensors"
    local = Path(runs / "disk/checkpoints/step-000000006/rank-00001.safetensors")
    assert object_upload.get_bytes(there) == local.read_bytes()


def test_a_bucket_that_is_not_there_ends_a_new_run_before_its_first_step(store, tmp_path, monkeypatch):
    from megarc.train.checkpoint.store_copy import StoreCopy
    from megarc.train.folder import RunFolder

    monkeypatch.setattr(object_upload, "PAUSES", ())
    folder = RunFolder(tmp_path)
    folder.environment.write_text("{}")
    with (
        pytest.raises(UserError, match=r"checkpoint\.store: s3://no-such-bucket/.*does not exist"),
        StoreCopy("s3://no-such-bucket/a", folder, 2, None).running(),
    ):
        pass
