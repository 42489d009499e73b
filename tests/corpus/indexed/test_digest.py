"""The digest tree."""

import hashlib

import pytest

from megarc.corpus.indexed import digest
from megarc.corpus.indexed.digest import TreeDigest


def tree_of(data: bytes, step: int):
    tree = TreeDigest()
    for first in range(0, len(data), step):
        tree.update(data[first : first + step])
    return tree.finish()


def test_the_root_does_not_depend_on_pieces_or_on_the_layer_kept(monkeypatch):
    monkeypatch.setattr(digest, "LEAF_BYTES", 16)
    for size in (0, 1, 16, 17, 100, 16 * 64, 16 * 65 + 3):
        data = bytes(range(256)) * 5
        data = data[:size]
        roots = set()
        for most in (1, 2, 4, 1024):
            monkeypatch.setattr(digest, "_MOST_NODES", most)
            for step in (1, 7, 16, 1000):
                tree = tree_of(data, step)
                roots.add(tree.root)
                assert len(tree.nodes) == -(-size // tree.node_bytes) <= 2 * most
        assert len(roots) == 1


def test_one_leaf_is_plain_sha256():
    assert tree_of(b"abc", 1).root == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("at", [0, 40, 99])
def test_a_flipped_byte_changes_its_node_alone(monkeypatch, at):
    monkeypatch.setattr(digest, "LEAF_BYTES", 16)
    data = bytearray(range(100))
    before = tree_of(bytes(data), 100)
    data[at] ^= 1
    after = tree_of(bytes(data), 100)
    changed = [i for i, pair in enumerate(zip(before.nodes, after.nodes, strict=True)) if pair[0] != pair[1]]
    assert changed == [at // 16]
    assert before.root != after.root
