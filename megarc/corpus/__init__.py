"""Text to tokens on disk.

In: files of text. Out: corpora, each a P.bin and P.idx as Megatron reads them,
with our manifest P.json beside them. No torch here.
"""

from typing import TYPE_CHECKING

from megarc.lazy_exports import open_when_used

if TYPE_CHECKING:
    from megarc.corpus.indexed.corpus import IndexedCorpus, corpus_name, corpus_prefix, dtype_for
    from megarc.corpus.indexed.digest import cheap_digest
    from megarc.corpus.indexed.manifest import (
        Manifest,
        PackSettings,
        TokenizerFacts,
        load_manifest,
        write_manifest,
    )
    from megarc.corpus.indexed.verify import make_manifest, verify
    from megarc.corpus.indexed.writer import IndexedWriter, Written
    from megarc.corpus.packing.assemble import join_parts
    from megarc.corpus.packing.pack import PackRequest, pack, pack_and_join
    from megarc.corpus.stored import StoreCache, StoredTokens
    from megarc.corpus.stored.tokenizer_file import stored_tokenizer
    from megarc.corpus.streamed import StreamedText, TextRequest
    from megarc.corpus.tokenizer import RESERVED, Tokenizer, load_tokenizer
    from megarc.corpus.tokenizer.describe import describe_tokenizer
    from megarc.corpus.tokenizer.find_file import copy_tokenizer, find_tokenizer_file
    from megarc.corpus.transcript import (
        Marks,
        Segment,
        TranscriptTokenizer,
        Unbalanced,
        parse_marked,
        plain_ids,
        read_ids,
        write_marked,
    )

__all__ = [
    "RESERVED",
    "IndexedCorpus",
    "IndexedWriter",
    "Manifest",
    "Marks",
    "PackRequest",
    "PackSettings",
    "Segment",
    "StoreCache",
    "StoredTokens",
    "StreamedText",
    "TextRequest",
    "Tokenizer",
    "TokenizerFacts",
    "TranscriptTokenizer",
    "Unbalanced",
    "Written",
    "cheap_digest",
    "copy_tokenizer",
    "corpus_name",
    "corpus_prefix",
    "describe_tokenizer",
    "dtype_for",
    "find_tokenizer_file",
    "join_parts",
    "load_manifest",
    "load_tokenizer",
    "make_manifest",
    "pack",
    "pack_and_join",
    "parse_marked",
    "plain_ids",
    "read_ids",
    "stored_tokenizer",
    "verify",
    "write_manifest",
    "write_marked",
]

open_when_used(__name__, __file__)
