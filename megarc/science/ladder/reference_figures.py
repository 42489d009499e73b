"""Figures of others, as lines beside a ladder of one's own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reference:
    """A figure in bits a token, or an interval of them."""

    name: str
    low: float
    high: float


TALK = (
    Reference("random", 15.0, 15.0),
    Reference("unigram", 11.7, 11.7),
    Reference("bigram", 8.8, 8.8),
    Reference("gzip", 8.2, 8.2),
    Reference("small LLM", 7.5, 7.5),
    Reference("human", 4.0, 4.0),
    Reference("LLM", 3.6, 3.6),
)
"""Dean Foster, A theorist takes a look at LLMs, November 2024: bits a token, of a text and tokenizer that the talk does
not name. Its own arithmetic is loose (log2 60000 is 15.9, log2 200 is 7.6)."""

_SHANNON = (0.6, 1.3)


def human(bytes_per_token: float) -> Reference:
    """What people reach on printed English, in bits a token of ``bytes_per_token`` bytes.

    .6 to 1.3 bits a letter. Source: Shannon 1951, Prediction and Entropy of Printed English (100 letters known; an
    alphabet of 26 letters and the space). For other text it is an orientation only.
    """
    low, high = (bits * bytes_per_token for bits in _SHANNON)
    return Reference("people, English (Shannon 1951)", low, high)
