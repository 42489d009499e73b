"""Text to tokens on disk.

In: files of text. Out: corpora, each a P.bin and P.idx as Megatron reads them,
with our manifest P.json beside them. No torch here.
"""

from megarc.corpus.indexed import IndexedCorpus, corpus_prefix, dtype_for
from megarc.corpus.manifest import Manifest, load_manifest, write_manifest
from megarc.corpus.tokenizer import RESERVED, Tokenizer, load_tokenizer
from megarc.corpus.writer import IndexedWriter, Written

__all__ = [
    "RESERVED",
    "IndexedCorpus",
    "IndexedWriter",
    "Manifest",
    "Tokenizer",
    "Written",
    "corpus_prefix",
    "dtype_for",
    "load_manifest",
    "load_tokenizer",
    "write_manifest",
]
