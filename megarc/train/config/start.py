"""The keys of a run that begins from another's checkpoint."""

from __future__ import annotations

from megarc.config import Config, key


class StartConfig(Config):
    """What is taken along from ``start_from``, beside the weights. The place in the data follows from the data."""

    moments: bool = key(
        True, "Adam's moments and their count of updates; false: they begin at 0", circumstance=True
    )
    step: bool = key(
        True,
        "the step, and with it counts of tokens and the place in length, schedule and batch stages; false: from 0",
        circumstance=True,
    )
