"""Lengths of a run, as people say them: ``2B tokens``, ``512 windows``, ``0.1 of run``.

Tokens are predicted ones, unless ``processed`` stands before them. Amounts are decimals, kept exactly: 0.07 of 100
steps is 7, not the 7.000000000000001 of binary fractions, which rounds up to 8.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from megarc.errors import UserError

_SUFFIX = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_UNITS = {
    "token": "tokens",
    "tokens": "tokens",
    "predicted token": "tokens",
    "predicted tokens": "tokens",
    "processed token": "processed",
    "processed tokens": "processed",
    "sample": "samples",
    "samples": "samples",
    "window": "samples",
    "windows": "samples",
    "step": "steps",
    "steps": "steps",
    "of run": "run",
}
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*)"  # a comma stands before three digits, or is a mistake
_NUMBER = rf"(?:{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)(?:e[+-]?[0-9]{{1,2}})?"
_PATTERN = re.compile(rf"({_NUMBER})\s*([kmbt]?)\s*({'|'.join(_UNITS)})", re.IGNORECASE)
_HOW = "write it like '2B tokens', '300 steps', '5k windows' or '0.1 of run'"
_MOST_DIGITS = 100  # behind the point: no number that was read has more


@dataclass(frozen=True, slots=True, init=False)
class Quantity:
    """An amount of training. ``unit`` is tokens (predicted ones), processed (tokens), samples, steps or run."""

    amount: Fraction
    unit: str

    def __init__(self, amount: float | Fraction, unit: str) -> None:
        """``amount`` is the decimal that a float is written as: 0.07 is 7/100."""
        exact = amount if isinstance(amount, Fraction) else Fraction(repr(amount))
        object.__setattr__(self, "amount", exact)
        object.__setattr__(self, "unit", unit)

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Reads ``text``.

        Raises:
            UserError: where it is no quantity.
        """
        match = _PATTERN.fullmatch(" ".join(str(text).split()))
        if match is None:
            raise UserError(f"{text!r} is not an amount of training; {_HOW}")
        amount = Fraction(re.sub("[_,]", "", match[1])) * _SUFFIX[match[2].lower()]
        unit = _UNITS[match[3].lower()]
        if unit == "run" and amount > 1:
            raise UserError(f"{text!r} is more than the whole run; a share lies between 0 and 1")
        return cls(amount, unit)

    def in_windows(self, *, stride: int, rows: int) -> Fraction:
        """Samples of ``stride`` predicted and ``rows`` processed tokens each, exactly.

        Raises:
            ValueError: for steps, or a share of the run: those depend on batches.
        """
        tokens = {"samples": 1, "tokens": stride, "processed": rows}.get(self.unit)
        if tokens is None:
            raise ValueError(f"'{self}' is not an amount of samples or tokens")
        return self.amount / tokens

    def in_samples(self, *, stride: int, rows: int) -> int:
        """Whole samples, rounded up; otherwise as ``in_windows``."""
        return math.ceil(self.in_windows(stride=stride, rows=rows))

    def __str__(self) -> str:
        names = {"run": "of run", "processed": "processed tokens"}
        return f"{_decimal(self.amount)} {names.get(self.unit, self.unit)}"


def _decimal(amount: Fraction) -> str:
    """``amount`` written out, all digits; one that is no decimal (1/3) to 100 places."""
    places = 0
    while (amount * 10**places).denominator != 1 and places < _MOST_DIGITS:
        places += 1
    digits = f"{int(amount * 10**places):0{places + 1}d}"
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits
