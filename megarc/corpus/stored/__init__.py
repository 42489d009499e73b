"""Corpora in an object store.

In: the URL of a corpus (``s3://bucket/corpus``) and the keys of a local cache. Out: its index on this machine, and
its tokens, read by ranges through the cache.
"""

from megarc.corpus.stored.open_stored import StoredCorpus, open_stored
from megarc.corpus.stored.settings import StoreCacheConfig
from megarc.corpus.stored.tokens import StoredTokens

__all__ = ["StoreCacheConfig", "StoredCorpus", "StoredTokens", "open_stored"]
