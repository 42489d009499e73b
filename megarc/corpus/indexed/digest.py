"""Digests of corpora: a tree of SHA-256 over a .bin, and a cheap one for corpora that came without any.

The tree's leaves cover 1 MiB each; two neighbours hash to their parent, an odd
last one passes through. A manifest keeps one layer of at most 2048 nodes, so a
flipped byte can be located to within one node; the root doesn't depend on which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from megarc.object_store import StoredFile, read_ranges

LEAF_BYTES = 1 << 20
_MOST_NODES = 1024
_SAMPLED_PAGES = 64
_PAGE_BYTES = 4096
_WHOLE_BELOW = 64 << 20
_ONE_REQUEST = 4 << 20  # a stored file up to here comes with the first page


@dataclass(frozen=True, slots=True)
class Tree:
    """A layer of the tree: node i covers bytes ``i * node_bytes`` on; ``root`` is the digest of all."""

    node_bytes: int
    nodes: tuple[str, ...]
    root: str


class TreeDigest:
    """Digests a stream of bytes, given in pieces of any size, with memory for one layer."""

    def __init__(self) -> None:
        self._leaf = hashlib.sha256()
        self._leaf_filled = 0
        self._pending: list[bytes] = []  # leaves of the node under way
        self._nodes: list[bytes] = []
        self._leaves_per_node = 1

    def update(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        while len(view):
            taken = view[: LEAF_BYTES - self._leaf_filled]
            self._leaf.update(taken)
            self._leaf_filled += len(taken)
            view = view[len(taken) :]
            if self._leaf_filled == LEAF_BYTES:
                self._end_leaf()

    def finish(self) -> Tree:
        if self._leaf_filled:
            self._end_leaf()
        if self._pending:
            self._nodes.append(_root(self._pending))
            self._pending = []
        nodes = tuple(node.hex() for node in self._nodes)
        return Tree(LEAF_BYTES * self._leaves_per_node, nodes, _root(self._nodes).hex())

    def _end_leaf(self) -> None:
        self._pending.append(self._leaf.digest())
        self._leaf, self._leaf_filled = hashlib.sha256(), 0
        if len(self._pending) == self._leaves_per_node:
            self._nodes.append(_root(self._pending))
            self._pending = []
        if len(self._nodes) == 2 * _MOST_NODES:
            self._nodes = _parents(self._nodes)
            self._leaves_per_node *= 2


def leaf_digests(path: Path | StoredFile, start: int, stop: int) -> list[str]:
    """The leaves of a file's tree that begin in bytes ``start`` to ``stop``: ranges can be digested apart."""
    leaves = []
    with path.open("rb") as file:
        at = -(-start // LEAF_BYTES) * LEAF_BYTES
        file.seek(at)
        while at < stop and (data := file.read(LEAF_BYTES)):
            leaves.append(hashlib.sha256(data).hexdigest())
            at += LEAF_BYTES
    return leaves


def root_of(leaves: list[str]) -> str:
    """The digest of a file from all of its leaves."""
    return _root([bytes.fromhex(leaf) for leaf in leaves]).hex()


def file_digest(path: Path) -> str:
    """Plain SHA-256 of a whole file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return stream_digest(file)


def stream_digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(LEAF_BYTES):
        digest.update(block)
    return digest.hexdigest()


def content_digest(dtype_code: int, idx_digest: str, bin_root: str, answers: str | None = None) -> str:
    """What a corpus *is*, wherever it lies and however it was made."""
    parts = [f"megarc corpus 1:{dtype_code}:{idx_digest}:{bin_root}", *([] if answers is None else [answers])]
    return hashlib.sha256(":".join(parts).encode()).hexdigest()


def cheap_digest(prefix: Path, tokens: StoredFile | None = None) -> str:
    """Of a corpus without a manifest: its .idx, the .bin's size and 64 of its pages.

    An .idx above 64 MiB is sampled in the same way. Milliseconds at any size;
    it does not see every change, which is why ``verify`` can make a manifest.

    Args:
        tokens: the .bin, where it lies in a store; its pages are then asked for all at once.
    """
    digest = hashlib.sha256(b"megarc sampled corpus 1")
    for path in (Path(f"{prefix}.idx"), tokens or Path(f"{prefix}.bin")):
        size = path.bytes if isinstance(path, StoredFile) else path.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        if isinstance(path, Path) and path.suffix == ".idx" and size <= _WHOLE_BELOW:
            digest.update(path.read_bytes())
            continue
        for page in _pages(path, size):
            digest.update(page)
    return digest.hexdigest()


def _pages(path: Path | StoredFile, size: int) -> Iterator[bytes]:
    """The 4 KiB at 64 places from the first to the last."""
    last = max(size - _PAGE_BYTES, 0)
    places = [last * page // (_SAMPLED_PAGES - 1) for page in range(_SAMPLED_PAGES)]
    if isinstance(path, StoredFile) and size > _ONE_REQUEST:
        yield from read_ranges(path.url, [(place, place + _PAGE_BYTES) for place in places])
        return
    with path.open("rb") as file:
        for place in places:
            file.seek(place)
            yield file.read(_PAGE_BYTES)


def _parents(nodes: list[bytes]) -> list[bytes]:
    whole = len(nodes) // 2 * 2
    joined = [hashlib.sha256(nodes[i] + nodes[i + 1]).digest() for i in range(0, whole, 2)]
    return joined + nodes[whole:]


def _root(nodes: list[bytes]) -> bytes:
    if not nodes:
        return hashlib.sha256().digest()
    while len(nodes) > 1:
        nodes = _parents(nodes)
    return nodes[0]
