"""Corpora in an object store.

In: the URL of a corpus (``s3://bucket/corpus``) and the keys of a local cache. Out: its index on this machine, and
its tokens, read by ranges through the cache.
"""

from megarc.corpus.stored.open_stored import StoredCorpus, open_stored
from megarc.corpus.stored.settings import CacheSettings, StoreCache
from megarc.corpus.stored.tokens import StoredTokens

__all__ = ["CacheSettings", "StoreCache", "StoredCorpus", "StoredTokens", "open_stored"]
