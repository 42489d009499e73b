"""Text to ids and back.

In: a tokenizer's file. Out: exactly the ids of the library that the file belongs to, by a
faster engine where one gives the same.
"""

from megarc.corpus.tokenizer.base import RESERVED, Tokenizer, join
from megarc.corpus.tokenizer.gigatoken_engine import with_fast_engine
from megarc.corpus.tokenizer.in_parts import EngineError
from megarc.corpus.tokenizer.load import load_tokenizer

__all__ = ["RESERVED", "EngineError", "Tokenizer", "join", "load_tokenizer", "with_fast_engine"]
