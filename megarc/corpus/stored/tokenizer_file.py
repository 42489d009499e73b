"""The tokenizer that lies beside a corpus in a store, brought into the cache."""

from __future__ import annotations

from pathlib import Path

from megarc.corpus.indexed.digest import file_digest
from megarc.corpus.stored.cache_folder import CacheFolder
from megarc.corpus.stored.open_stored import copy_whole
from megarc.corpus.stored.settings import CacheSettings
from megarc.corpus.tokenizer.find_file import LARGEST, PATTERNS, TRAVELS, find_tokenizer_file
from megarc.object_store import ask, fitting


def stored_tokenizer(url: str, digest: str, settings: CacheSettings) -> Path | None:
    """A copy of the tokenizer with that digest beside the corpus ``url``; None: it is not there.

    Raises:
        OSError: where the cache cannot be written.
        UserError: if the store refuses a request or does not answer.
    """
    beside = url.rpartition("/")[0]
    cache = CacheFolder(settings.folder, settings.limit)
    folder = cache.folder("tokenizer", beside, digest)
    if (found := find_tokenizer_file(folder, digest)) is not None:
        return found
    for pattern in PATTERNS:
        for candidate in fitting(f"{beside}/{pattern}"):
            if candidate.bytes > LARGEST:
                continue
            copy = folder / candidate.name
            copy_whole(candidate, cache, copy)
            if file_digest(copy) != digest:
                copy.unlink(missing_ok=True)
                continue
            for name in TRAVELS:
                if (more := ask(f"{candidate.url.rpartition('/')[0]}/{name}")) is not None:
                    copy_whole(more, cache, folder / name)
            return copy
    return None
