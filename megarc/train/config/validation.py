"""The keys of held-out losses."""

from __future__ import annotations

from megarc.config import Config, Duration, key
from megarc.quantity import Quantity


class ValidationConfig(Config):
    """Held-out loss during training, on data.valid."""

    every: Duration = key(
        Quantity(0.1, "run"), "between held-out losses; one more at the end", circumstance=True
    )
    windows: int = key(
        256,
        "windows that are scored each time: of each source of data.valid as many, from its first on",
        circumstance=True,
        ge=1,
    )
