"""A ladder of losses: what simple predictors and trained models make of the same held-out tokens.

In: two packed corpora, runs. Out: rows with nats and bits a token and bits a byte. n-grams are counted by sorting on
disk (`external_count.py`), and smoothed by interpolated modified Kneser-Ney (`kneser_ney.py`).
"""

from megarc.science.ladder.compressors import compressors, dictionary_bytes, with_dictionary
from megarc.science.ladder.kneser_ney import KneserNey, count_ngrams
from megarc.science.ladder.reference_figures import TALK, Reference, human
from megarc.science.ladder.row import Row
from megarc.science.ladder.rows import compressed, counting_work, ngram_name, ngrams, uniform

__all__ = [
    "TALK",
    "KneserNey",
    "Reference",
    "Row",
    "compressed",
    "compressors",
    "count_ngrams",
    "counting_work",
    "dictionary_bytes",
    "human",
    "ngram_name",
    "ngrams",
    "uniform",
    "with_dictionary",
]
