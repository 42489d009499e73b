"""Text to ids and back.

In: a tokenizer's file. Out: exactly the ids of the library that the file belongs to, by a
faster engine where one gives the same.
"""

from megarc.corpus.tokenizer.base import RESERVED, Tokenizer, join
from megarc.corpus.tokenizer.door import load_tokenizer
from megarc.corpus.tokenizer.fast import EngineError, with_fast_engine

__all__ = ["RESERVED", "EngineError", "Tokenizer", "join", "load_tokenizer", "with_fast_engine"]
