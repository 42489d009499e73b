"""Transcripts: text in which code is followed by its output.

In: marked text (``<in:python>2+2</in><out>4</out>``), or segments. Out: ids in which reserved tokens stand where
the marks stood. No text turns into those, so what a program prints can't forge one.
"""

from megarc.corpus.transcript.markup import Segment, Unbalanced, parse_marked, write_marked
from megarc.corpus.transcript.token_ids import Marks, TranscriptTokenizer, plain_ids, read_ids

__all__ = [
    "Marks",
    "Segment",
    "TranscriptTokenizer",
    "Unbalanced",
    "parse_marked",
    "plain_ids",
    "read_ids",
    "write_marked",
]
