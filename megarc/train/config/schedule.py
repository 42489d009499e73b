"""The keys of the learning rate over a run."""

from __future__ import annotations

from typing import Literal

from megarc.config import Config, Duration, key
from megarc.quantity import Quantity


class ScheduleConfig(Config):
    """Learning rate over a run: linear warm-up, then a shape."""

    kind: Literal["cosine", "wsd", "constant"] = key(
        "cosine", "cosine to the end; wsd: stable, then a linear decay; constant"
    )
    warmup: Duration = key(Quantity(0.02, "run"), "linear from 0; '100 steps', '0.02 of run', '1M tokens'")
    decay: Duration = key(Quantity(0.2, "run"), "wsd only: length of the decay at the end")
    final: float = key(0.1, "share of the peak that is left at the end", ge=0, le=1)
