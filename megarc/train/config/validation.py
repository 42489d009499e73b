"""The keys of held-out losses."""

from __future__ import annotations

from megarc.config import Config, Duration, PathKey, key
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
    tasks: list[PathKey] = key(
        [],
        "JSON lines of multiple choice or cloze that are scored too; see docs/evaluation.md",
        circumstance=True,
    )
    tasks_every: Duration | None = key(
        None, "between scores on validation.tasks; null: as validation.every", circumstance=True
    )
