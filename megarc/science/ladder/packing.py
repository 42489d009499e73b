"""n-grams as single numbers that sort as the n-grams do, so that numpy can sort and search them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.errors import UserError

Keys: TypeAlias = npt.NDArray[Any]
"""uint64 or complex128, one number a gram."""
Words: TypeAlias = npt.NDArray[np.uint64]

_EXACT = 2**53  # whole numbers up to here are exact in a float64


@dataclass(frozen=True, slots=True)
class Packing:
    """n-grams of ``order`` ids below ``vocabulary``, packed with the first id on top.

    Where 64 bits are too few, a key is a complex number: its real part holds the first ids, its imaginary part the
    last ones. numpy sorts complex numbers by the real part, then by the imaginary part.
    """

    order: int
    vocabulary: int

    def __post_init__(self) -> None:
        if not _fits(self.order, self.vocabulary):
            most = next(order for order in range(self.order, 0, -1) if _fits(order, self.vocabulary))
            raise UserError(
                f"{self.order}-grams of a vocabulary of {self.vocabulary} do not fit into 106 bits; "
                f"give --order {most} or less"
            )

    @property
    def wide(self) -> bool:
        """Whether a key takes two numbers."""
        return _wide(self.order, self.vocabulary)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.complex128 if self.wide else np.uint64)

    def pack(self, columns: Sequence[npt.NDArray[Any]]) -> Keys:
        """The keys [n] of grams whose ids are ``columns``, ``order`` arrays [n]."""
        if not self.wide:
            return _joined(columns, self.vocabulary)
        half = self.order // 2
        keys: Keys = np.empty(len(columns[0]), np.complex128)
        keys.real = _joined(columns[: self.order - half], self.vocabulary)
        keys.imag = _joined(columns[self.order - half :], self.vocabulary)
        return keys

    def columns(self, keys: Keys) -> list[Words]:
        """The ids of ``keys`` [n], ``order`` arrays [n]."""
        if not self.wide:
            return _split(keys, self.order, self.vocabulary)
        half = self.order // 2
        first = _split(keys.real.astype(np.uint64), self.order - half, self.vocabulary)
        return first + _split(keys.imag.astype(np.uint64), half, self.vocabulary)


def _wide(order: int, vocabulary: int) -> bool:
    return vocabulary**order > 2**64


def _fits(order: int, vocabulary: int) -> bool:
    return not _wide(order, vocabulary) or vocabulary ** -(-order // 2) <= _EXACT


def _joined(columns: Sequence[npt.NDArray[Any]], vocabulary: int) -> Words:
    total = columns[0].astype(np.uint64)
    for column in columns[1:]:
        total *= np.uint64(vocabulary)
        total += column.astype(np.uint64, copy=False)
    return total


def _split(numbers: Words, order: int, vocabulary: int) -> list[Words]:
    base, columns = np.uint64(vocabulary), []
    for _ in range(order - 1):
        numbers, last = np.divmod(numbers, base)
        columns.append(last)
    return [numbers, *reversed(columns)]
