"""Opens ``s3://bucket/corpus``: its index and manifest are copied, and its tokens stay in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megarc.atomic_write import cannot_write
from megarc.corpus.indexed.digest import cheap_digest
from megarc.corpus.stored.blocks import Blocks
from megarc.corpus.stored.cache_folder import CacheFolder
from megarc.corpus.stored.settings import CacheSettings
from megarc.corpus.stored.tokens import StoredTokens
from megarc.errors import UserError
from megarc.object_store import StoredFile, ask, read_ranges

_COPIED = (".idx", ".json", ".answers")
_RANGE = 8 << 20  # bytes of a request for a file that is copied
_RANGES = 8  # at once
_DIGITS = 64  # of a digest


@dataclass(frozen=True, slots=True)
class StoredCorpus:
    """A corpus whose small files are here.

    Attributes:
        url: of the corpus, without ``.bin``.
        prefix: ``P`` of the copies ``P.idx``, ``P.json`` and ``P.answers``.
        bin: the object of the tokens.
    """

    url: str
    prefix: Path
    bin: StoredFile
    cache: CacheFolder
    block: int

    def tokens(self, dtype: np.dtype[Any]) -> StoredTokens:
        """The tokens, of the type that the index states."""
        beside = [path for suffix in _COPIED if (path := Path(f"{self.prefix}{suffix}")).exists()]
        blocks = Blocks(self.bin, self.cache, self.prefix.parent, self.block, beside)
        return StoredTokens(blocks, dtype)

    def sampled_digest(self) -> str:
        """``cheap_digest``, worked out once for all processes that use the cache.

        Raises:
            UserError: if the store refuses a request or does not answer.
        """
        path = Path(f"{self.prefix}.sampled")
        digest = None
        try:
            with self.cache.claim(path, wait=True) as claim:
                if path.exists() and len(kept := path.read_text()) == _DIGITS:
                    return kept
                digest = cheap_digest(self.prefix, self.bin)
                assert claim is not None
                claim.file.write(digest.encode())
                self.cache.publish(claim)
        except OSError:  # a full disk
            pass
        return digest or cheap_digest(self.prefix, self.bin)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors name the objects, not their copies."""
        try:
            yield
        except UserError as error:
            raise UserError(str(error).replace(str(self.prefix), self.url)) from None


def open_stored(url: str, settings: CacheSettings) -> StoredCorpus:
    """
    Raises:
        UserError: where there is no such corpus, the store refuses or stays away, or the cache cannot be written.
    """
    url = url.removesuffix(".bin").removesuffix(".idx")
    found = {suffix: ask(f"{url}{suffix}") for suffix in (*_COPIED, ".bin")}
    tokens = found[".bin"]
    if tokens is None or found[".idx"] is None:
        missing = next(suffix for suffix in (".idx", ".bin") if found[suffix] is None)
        raise UserError(
            f"no such corpus: {url} (there is no object {url}{missing}); give the URL of its files without .bin or .idx"
        )
    versions = [one and one.version for one in found.values()]
    cache = CacheFolder(settings.folder, settings.limit)
    try:
        folder = cache.folder("corpus", url, versions, settings.block)
        for suffix in _COPIED:
            if (file := found[suffix]) is not None:
                copy_whole(file, cache, folder / f"corpus{suffix}")
    except OSError as error:
        raise cannot_write(settings.folder, error) from error
    return StoredCorpus(url, folder / "corpus", tokens, cache, settings.block)


def copy_whole(file: StoredFile, cache: CacheFolder, path: Path) -> None:
    """A copy of the object in the cache, by this process or by another that is at it already.

    Raises:
        OSError: where the cache cannot be written.
        UserError: if the store refuses a request or does not answer, or the object has changed.
    """
    with cache.claim(path, wait=True) as claim:
        if path.exists() and path.stat().st_size == file.bytes:  # a loss of power may have left less
            cache.touch(path)
            return
        assert claim is not None
        ranges = [(at, min(at + _RANGE, file.bytes)) for at in range(0, file.bytes, _RANGE)]
        for first in range(0, len(ranges), _RANGES):
            for data in read_ranges(file.url, ranges[first : first + _RANGES]):
                claim.file.write(data)
        now = ask(file.url)
        if now is None or now.version != file.version:
            raise UserError(f"{file.url} changed while it was read; run the same command again")
        cache.publish(claim)
