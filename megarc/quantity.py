"""Lengths of a run, as people say them: ``2B tokens``, ``512 windows``, ``0.1 of run``.

Tokens are predicted ones, unless ``processed`` stands before them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

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
_NUMBER = r"[0-9][0-9_,]*(?:\.[0-9]+)?(?:e[0-9]+)?"
_PATTERN = re.compile(rf"({_NUMBER})\s*([kmbt]?)\s*({'|'.join(_UNITS)})", re.IGNORECASE)
_HOW = "write it like '2B tokens', '300 steps', '5k windows' or '0.1 of run'"


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount of training. ``unit`` is tokens (predicted ones), processed (tokens), samples, steps or run."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Reads ``text``.

        Raises:
            UserError: where it is no quantity.
        """
        match = _PATTERN.fullmatch(" ".join(str(text).split()))
        if match is None:
            raise UserError(f"{text!r} is no amount of training; {_HOW}")
        amount = float(re.sub("[_,]", "", match[1])) * _SUFFIX[match[2].lower()]
        unit = _UNITS[match[3].lower()]
        if unit == "run" and amount > 1:
            raise UserError(f"{text!r} is more than the whole run; a share lies between 0 and 1")
        return cls(amount, unit)

    def in_samples(self, *, stride: int, rows: int) -> int:
        """Whole samples (rounded up), of ``stride`` predicted and ``rows`` processed tokens each.

        Raises:
            ValueError: for steps, or a share of the run: those depend on batches.
        """
        tokens = {"samples": 1, "tokens": stride, "processed": rows}.get(self.unit)
        if tokens is None:
            raise ValueError(f"'{self}' is no amount of samples or tokens")
        return math.ceil(self.amount / tokens)

    def __str__(self) -> str:
        number = f"{self.amount:g}" if self.amount < 1e6 or self.amount % 1 else f"{int(self.amount)}"
        names = {"run": "of run", "processed": "processed tokens"}
        return f"{number} {names.get(self.unit, self.unit)}"
