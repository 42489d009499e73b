"""Texts in a real S3 server are packed as from a disk, through faults that pass; those that stay are explained."""

import gzip
import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from .faulty_store import faulty_store

ROOT = Path(__file__).parents[2]
MISSING = [
    name for name in ("moto", "s3fs", "zstandard", "pyarrow") if importlib.util.find_spec(name) is None
]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"pip install 'megarc[s3]' 'moto[server]': no {MISSING}"
)
LINES = [
    {"text": f"document {number}: " + "so it goes on and on. " * (number % 50)} for number in range(4000)
]


@pytest.fixture(scope="module")
def store():
    with faulty_store() as running:
        yield running


@pytest.fixture
def environment(store, monkeypatch):
    """Of a command that finds the store; the proxy is whole again."""
    store.where, _ = "", (store.faults.clear(), store.requests.clear())
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "some-key"), ("AWS_SECRET_ACCESS_KEY", "a-secret-of-mine"),
        ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_ENDPOINT_URL", store.endpoint),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def texts(store, tmp_path_factory):
    """The same files on the disk and in ``s3://texts/data``: lines, plain and in gzip and zstandard, and parquet."""
    import boto3
    import pyarrow
    import zstandard
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("data")
    rows = [orjson.dumps(line) + b"\n" for line in LINES]
    table = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(LINES[3000:]), table, row_group_size=300)
    files = {
        "a.jsonl": b"".join(rows[:1000]), "b/c.jsonl.gz": gzip.compress(b"".join(rows[1000:2000])),
        "b/d.jsonl.zst": zstandard.compress(b"".join(rows[2000:3000])), "e.parquet": table.getvalue(),
        ".hidden.jsonl": b"{}\n", "b/README.md": b"---\nlicense: mit\n---\n",
    }  # fmt: skip
    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    client.create_bucket(Bucket="texts")
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        client.put_object(Bucket="texts", Key=f"data/{name}", Body=content)
    return folder


def preprocess(*arguments, code=0):
    found = subprocess.run(
        [sys.executable, ROOT / "data_tools/preprocess.py", "--tokenizer-model", "bytes", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    words = found.stdout + found.stderr
    assert found.returncode == code, words
    assert "Traceback" not in words
    assert "a-secret-of-mine" not in words
    return words


def tokens(prefix):
    return [Path(f"{prefix}.{suffix}").read_bytes() for suffix in ("bin", "idx")]


def test_a_folder_of_a_bucket_is_packed_as_from_a_disk(store, texts, environment, tmp_path):
    preprocess("--input", texts, "--output-prefix", tmp_path / "disk", "--no-shuffle", "--workers", 2)
    said = preprocess(
        "--input", "s3://texts/data", "--output-prefix", tmp_path / "s3", "--no-shuffle", "--workers", 2
    )
    assert tokens(tmp_path / "disk") == tokens(tmp_path / "s3")
    assert "1 hidden" in said
    assert "1 dataset cards" in said
    named = orjson.loads((tmp_path / "s3.json").read_bytes())
    assert "s3://texts/data/b/d.jsonl.zst" in str(named)
    assert "a-secret-of-mine" not in str(named)


def test_what_passes_is_tried_again(store, texts, environment, tmp_path):
    """Busy answers, a body cut in its middle, a slow one: the corpus is the same."""
    preprocess("--input", texts / "a.jsonl", "--output-prefix", tmp_path / "disk")
    for fault, count in (("busy", 3), ("cut", 2), ("slow", 1)):
        store.where, store.faults[fault] = "a.jsonl", count
        preprocess("--input", "s3://texts/data/*.jsonl", "--output-prefix", tmp_path / fault)
        assert store.faults[fault] == 0
        assert tokens(tmp_path / "disk") == tokens(tmp_path / fault)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://texts/data/nowhere.jsonl", "no such object or folder: s3://texts/data/nowhere.jsonl"),
        ("s3://texts/data/*.tar", "no object matches s3://texts/data/"),
        ("s3://no-such-bucket/x", "no-such-bucket"),
        ("s3://me:word@texts/data", "credentials belong in the environment"),
        ("s3://me:pass/word@texts/data", "credentials belong in the environment"),
        ("nfs4://texts/data", "no store that fsspec knows"),
        ("file:///etc/hostname", "give its path"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named(store, texts, environment, tmp_path, url, words):
    said = preprocess("--input", url, "--output-prefix", tmp_path / "x", code=2)
    assert words in said
    assert "word@" not in said
    assert not list(tmp_path.iterdir())


def test_without_credentials_the_error_says_how_to_give_them(
    store, texts, environment, tmp_path, monkeypatch
):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    said = preprocess("--input", "s3://texts/data", "--output-prefix", tmp_path / "x", code=2)
    assert "set AWS_ACCESS_KEY_ID" in said


def test_a_token_that_expires_meanwhile_ends_the_job_which_then_goes_on(store, texts, environment, tmp_path):
    store.where, store.faults["expired"] = "c.jsonl.gz", 1000
    arguments = ("--input", "s3://texts/data", "--output-prefix", tmp_path / "x", "--no-shuffle")
    said = preprocess(*arguments, code=2)
    assert "c.jsonl.gz" in said
    assert not list(tmp_path.glob("*.bin"))
    store.faults.clear()
    preprocess(*arguments)
    preprocess("--input", texts, "--output-prefix", tmp_path / "disk", "--no-shuffle")
    assert tokens(tmp_path / "disk") == tokens(tmp_path / "x")
