"""What one gets right who knows only how often each answer comes: for a task's note in the run's log."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Shares: TypeAlias = npt.NDArray[np.float64]
"""The probability of each answer: [answers, ids], or [ids] where all answers are alike."""


def chance_of(shares: Shares) -> tuple[float, float]:
    """Nats an answer and accuracy: the mean entropy, and the mean probability of the likeliest answer."""
    rows = np.atleast_2d(shares)
    logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
    return 0.0 - float((rows * logs).sum(1).mean()), float(rows.max(1).mean())


def determined(answers: int, shares: Shares) -> str:
    """The note of a task whose ``answers`` follow from what stands before them, so that the Bayes loss is 0."""
    nats, right = chance_of(shares)
    return f"{answers} answers a sample: 0 nats and accuracy 1 at best, {nats:.4f} and {right:.4f} by chance"
