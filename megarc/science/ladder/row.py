"""One row of the ladder: a predictor and its loss in every unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A predictor's loss on the held-out targets.

    Attributes:
        name: the row's name, in the table, the plot and the JSON.
        pattern: what it has found in the text, in a few words.
        standard_error: of ``nats_per_token``, for text of this kind; None where it has none.
        bytes_per_token: of the held-out text; None where unknown.
        kind: ``uniform``, ``ngram``, ``compressor`` or ``model``.
    """

    name: str
    pattern: str
    kind: str
    nats_per_token: float
    standard_error: float | None = None
    bytes_per_token: float | None = None

    @property
    def bits_per_token(self) -> float:
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_byte(self) -> float | None:
        return None if self.bytes_per_token is None else self.bits_per_token / self.bytes_per_token

    @property
    def choices(self) -> float:
        """Equally likely tokens that would be as hard to tell apart: ``2 ** bits_per_token``."""
        # A piece of a few tokens can take more bits than a float holds.
        return float(2.0 ** min(self.bits_per_token, 1000.0))

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "nats_per_token": self.nats_per_token,
            "bits_per_token": self.bits_per_token,
            "bits_per_byte": self.bits_per_byte,
            "standard_error": self.standard_error,
            "choices": self.choices,
            "kind": self.kind,
            "pattern": self.pattern,
        }
