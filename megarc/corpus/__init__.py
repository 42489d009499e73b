"""Text to tokens on disk.

In: files of text. Out: corpora, each a P.bin and P.idx as Megatron reads them,
with our manifest P.json beside them. No torch here.
"""

from megarc.corpus.indexed import IndexedCorpus, corpus_prefix, dtype_for
from megarc.corpus.manifest import Manifest, load_manifest, write_manifest
from megarc.corpus.writer import IndexedWriter, Written

__all__ = [
    "IndexedCorpus",
    "IndexedWriter",
    "Manifest",
    "Written",
    "corpus_prefix",
    "dtype_for",
    "load_manifest",
    "write_manifest",
]
