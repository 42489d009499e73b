"""The manifest: round trip and refusals."""

import orjson
import pytest

from megarc.corpus import Manifest, load_manifest, write_manifest
from megarc.corpus.indexed import manifest
from megarc.corpus.indexed.manifest import BinDigests, InputFacts
from megarc.errors import UserError

MANIFEST = Manifest(
    documents=2,
    tokens=7,
    text_bytes=20,
    dtype="uint16",
    content_digest="c" * 64,
    idx_digest="d" * 64,
    bin_digests=BinDigests(node_bytes=1 << 20, nodes=["e" * 64], root="e" * 64),
    inputs=[InputFacts(name="a.jsonl", bytes=30, digest="f" * 64)],
)


def test_round_trip(tmp_path):
    assert load_manifest(tmp_path / "c") is None
    write_manifest(tmp_path / "c", MANIFEST)
    assert load_manifest(tmp_path / "c") == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "another"}, "not a manifest"),
        ({"version": 2}, "version 2"),
        ({"tokens": "7"}, "tokens"),
        ({"tokens": -7}, "tokens"),
        ({"tokken": 7}, "tokken"),
    ],
)
def test_what_is_no_manifest_is_refused_by_name(tmp_path, change, message):
    write_manifest(tmp_path / "c", MANIFEST)
    path = tmp_path / "c.json"
    tree = orjson.loads(path.read_bytes()) | change
    del tree["checksum"]
    path.write_bytes(orjson.dumps(tree | {"checksum": manifest._checksum(tree)}))
    with pytest.raises(UserError, match=message):
        load_manifest(tmp_path / "c")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null"])
def test_damage_is_refused(tmp_path, content):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(UserError, match=r"c\.json"):
        load_manifest(tmp_path / "c")


def test_a_change_by_hand_is_noticed(tmp_path):
    write_manifest(tmp_path / "c", MANIFEST)
    path = tmp_path / "c.json"
    path.write_bytes(path.read_bytes().replace(b'"text_bytes": 20', b'"text_bytes": 21'))
    with pytest.raises(UserError, match="checksum"):
        load_manifest(tmp_path / "c")
