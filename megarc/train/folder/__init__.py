"""A run's folder on disk: its files, its lock, its logs.

In: a resolved configuration, lines of text and metrics, states. Out: files that a reader finds whole or not at all;
the same command on the same folder goes on there.
"""

from megarc.train.folder.append_only import Lines
from megarc.train.folder.folder_lock import hold
from megarc.train.folder.run_folder import RunFolder
from megarc.train.folder.tokenizer_copy import (
    beside_corpora,
    keep_facts,
    keep_tokenizer,
    kept_facts,
    of_corpora,
    tokenizer_of_corpora,
)

__all__ = [
    "Lines",
    "RunFolder",
    "beside_corpora",
    "hold",
    "keep_facts",
    "keep_tokenizer",
    "kept_facts",
    "of_corpora",
    "tokenizer_of_corpora",
]
