"""The keys of a profile of some steps."""

from __future__ import annotations

from megarc.config import Config, Duration, key
from megarc.quantity import Quantity


class ProfileConfig(Config):
    """Some steps seen from inside: a trace for Perfetto, a table by phase, a snapshot of a GPU's memory."""

    at: Duration = key(
        Quantity(10, "steps"), "the first step that is profiled; of a resumed run, no earlier than its second",
        circumstance=True,
    )  # fmt: skip
    steps: int = key(2, "how many", circumstance=True, ge=1)
    ranks: list[int] = key([0], "on which ranks", circumstance=True, min_length=1)
    memory: bool = key(False, "record allocations too", circumstance=True)
