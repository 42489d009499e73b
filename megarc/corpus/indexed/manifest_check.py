"""Is a corpus the one that its manifest tells of: what can be compared in milliseconds, at every opening.

It notices another corpus under the same name, which would be trained on under the first one's digest. It does not
read the whole: a byte that was flipped between the samples is for ``verify``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from megarc.corpus.indexed.answer_starts import answers_path
from megarc.corpus.indexed.digest import LEAF_BYTES, cheap_digest, file_digest, leaf_digests
from megarc.corpus.indexed.manifest import Manifest
from megarc.corpus.stored import StoredCorpus
from megarc.errors import UserError

_READ_WHOLE_BELOW = 64 << 20  # bytes: about 0.1 s of hashing


def check_manifest(
    prefix: Path, manifest: Manifest, found: Mapping[str, Any], stored: StoredCorpus | None = None
) -> None:
    """Compares counts, type of tokens and sampled digests.

    Args:
        found: ``documents``, ``tokens`` and ``dtype`` of the files.
        stored: the corpus, where it lies in a store.

    Raises:
        UserError: where something differs.
    """
    for what in _differences(prefix, manifest, found, stored):
        raise UserError(
            f"{prefix}.json is the manifest of another corpus than {prefix}.bin and .idx: {what}. Bring back the files "
            "that belong together; or, if these are the ones that you mean, move the manifest away and run "
            f"data_tools/verify.py {prefix} --make-manifest"
        )


def _differences(
    prefix: Path, manifest: Manifest, found: Mapping[str, Any], stored: StoredCorpus | None
) -> Iterator[str]:
    for name, value in found.items():
        if (stated := getattr(manifest, name)) != value:
            yield f"it says {name} {stated}, the files have {value}"
    yield from _answers_differ(prefix, manifest.answers_digest)
    if manifest.sampled_digest is not None:
        sampled = cheap_digest(prefix) if stored is None else stored.sampled_digest()
        if sampled != manifest.sampled_digest:
            yield "their index or tokens differ from its digests"
        return
    # A manifest of an earlier megarc has no digest of samples.
    index = Path(f"{prefix}.idx")
    if index.stat().st_size <= _READ_WHOLE_BELOW and file_digest(index) != manifest.idx_digest:
        yield "the .idx has another digest"
    nodes, file = manifest.bin_digests, Path(f"{prefix}.bin") if stored is None else stored.bin
    if nodes.node_bytes == LEAF_BYTES:
        for place in sorted({0, len(nodes.nodes) // 2, len(nodes.nodes) - 1}):
            begin = place * LEAF_BYTES
            if nodes.nodes and leaf_digests(file, begin, begin + 1) != [nodes.nodes[place]]:
                yield f"the .bin differs after byte {begin}"


def _answers_differ(prefix: Path, stated: str | None) -> Iterator[str]:
    path = answers_path(prefix)
    if path.exists() != (stated is not None):
        yield f"it lists {'an' if stated else 'no'} .answers file, and there is {'none' if stated else 'one'}"
    elif stated is not None and path.stat().st_size <= _READ_WHOLE_BELOW and file_digest(path) != stated:
        yield "the .answers has another digest"
