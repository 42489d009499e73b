"""What identifies a document, and where it goes: its key in the packed order, its hash, its split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

UInt64s = Any  # an array of np.uint64


def order_keys(records: npt.NDArray[Any], seed: int | None) -> UInt64s:
    """The key by which documents are sorted (ties: by input, then offset), u64 ``[documents]``.

    A function of the document's place in the inputs alone, so that the order doesn't
    depend on workers or parts. Without a seed it is the inputs' order.
    """
    inputs, offsets = records["input"].astype(np.uint64), records["offset"]
    if seed is None:
        return inputs
    keyed = mixed(inputs + mixed(np.full(1, seed, np.uint64)))
    return mixed(keyed ^ mixed(offsets))


def mixed(values: UInt64s) -> UInt64s:
    """splitmix64's finaliser (Steele, Lea, Flood 2014): a bijection that scatters."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def text_hashes(texts: Sequence[str]) -> UInt64s:
    """128 bits of each text, u64 ``[texts, 2]``."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def split_numbers(hashes: UInt64s, shares: Mapping[str, float], seed: int) -> npt.NDArray[np.int64]:
    """Which split each document belongs to, as a number, ``[documents]``.

    By its text alone: it never changes split when inputs are added, and equal
    documents share one.
    """
    with np.errstate(over="ignore"):
        scattered = mixed(hashes[:, 0] ^ mixed(np.full(1, seed, np.uint64)))
    place = (scattered >> np.uint64(11)).astype(np.float64) / 2**53  # [0, 1)
    weights = np.array(list(shares.values()), np.float64)
    borders = np.cumsum(weights / weights.sum())[:-1]
    return np.searchsorted(borders, place, side="right").astype(np.int64)
