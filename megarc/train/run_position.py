"""Where a run stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands: what a checkpoint knows beside tensors.

    A run that began from another's checkpoint may count on from there, with other data: ``samples`` go on, the
    order of the new phase counts from 0.
    """

    step: int  # steps taken
    samples: int  # samples (windows of the present kind) consumed
    phase: int = 0
    begin: int = (
        0  # samples consumed before sample 0 of the phase's order; below 0: another run has read these
    )
    order: str = ""  # digest of the phase's order; "": saved before there was one
    tokenizer: str | None = None  # digest of the tokenizer of the data; None: unknown
    more_predicted: int = 0  # tokens beyond those of ``samples``: earlier phases had windows of another kind
    more_processed: int = 0
    more_updates: int = 0  # updates in the optimizer's moments beyond this run's own
    # ranges of the order's samples left out on purpose
    skipped: list[list[int]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)  # digests of the corpora
    without_update: int = 0  # of the steps, those whose update was left out
    averaged: int = 0  # weights in the plain mean of average.last_k; 0: there is none
    losses: dict[str, Any] = field(default_factory=dict)  # the running mean by which a loss is judged

    @property
    def updates(self) -> int:
        """What the optimizer counts."""
        return self.step - self.without_update + self.more_updates
