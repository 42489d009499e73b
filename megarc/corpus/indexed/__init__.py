"""A corpus on disk: Megatron's .bin and .idx, our manifest beside them, digests, verification.

In: token ids, document by document (`writer.py`). Out: ``IndexedCorpus`` (`corpus.py`), which reads any run of tokens
from a memory map; what does not agree with the manifest is named (`verify.py`).
"""
