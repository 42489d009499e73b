"""Random numbers that are looked up, not drawn: one 64-bit word for each (key, number).

No generator, so no state: whoever asks for number 10^12 gets it at once, and
gets the same on every machine and with every version of numpy.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Words: TypeAlias = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(32)


def key_of(*parts: str | int) -> int:
    """A 64-bit key from everything that it shall depend on."""
    text = json.dumps(parts, ensure_ascii=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def digest_of(*parts: str | int) -> str:
    """A digest of everything that shall decide whether two things are the same."""
    return hashlib.blake2b(json.dumps(parts, ensure_ascii=True).encode(), digest_size=16).hexdigest()


def words(key: int, numbers: npt.ArrayLike) -> Words:
    """Word ``numbers[...]`` of the stream ``key``: uint64 of the same shape, at least 1-D."""
    return mix(_unsigned(numbers) * GOLDEN + np.uint64(key))


def table(key: int, numbers: npt.ArrayLike, columns: int) -> Words:
    """``columns`` independent words for each number: uint64 [numbers, columns]."""
    steps = np.arange(1, columns + 1, dtype=np.uint64) * GOLDEN
    return mix(words(key, numbers)[:, None] + steps)


def below(word: Words, limit: int) -> Words:
    """Each word as a whole number in 0..limit-1, ``limit`` <= 2**32: its upper half times the limit."""
    return ((word >> _LOW) * np.uint64(limit)) >> _LOW


def chance(word: Words, share: float) -> npt.NDArray[np.bool_]:
    """True for a ``share`` of all words, to 2**-32."""
    return (word >> _LOW) < np.uint64(round(share * 2**32))


def mix(word: Words) -> Words:
    """A bijection of 64-bit words that scatters every bit: the finaliser of SplitMix64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def _unsigned(numbers: Any) -> Words:
    return np.atleast_1d(np.asarray(numbers)).astype(np.uint64)
