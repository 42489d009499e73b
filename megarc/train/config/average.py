"""The keys of weights that are averaged along the run."""

from __future__ import annotations

from pydantic import model_validator

from megarc.config import Config, key


class AverageConfig(Config):
    """A second set of weights, the mean of those that the run passes through; docs/optimizers.md."""

    decay: float | None = key(
        None,
        "of an exponential average, for instance 0.999: what of it stays at each step. null: none",
        circumstance=True,
        gt=0,
        lt=1,
    )
    last_k: int | None = key(
        None,
        "the plain mean of the weights after each of the run's last k steps (all, where it has fewer); before them, "
        "the weights. null: none",
        circumstance=True,
        ge=1,
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> AverageConfig:
        if self.decay is not None and self.last_k is not None:
            raise ValueError("average.decay and average.last_k are two averages; give one of them")
        return self

    @property
    def on(self) -> bool:
        """Whether an average is kept."""
        return self.decay is not None or self.last_k is not None

    def share(self, step: int) -> float:
        """What of the weights after step ``step`` = 1, 2, .. goes into an exponential average; the rest of it stays.

        It begins with the weights: its decay is at most (1 + step) / (10 + step).
        """
        assert self.decay is not None
        return 1 - min(self.decay, (1 + step) / (10 + step))

    def first(self, total: int) -> int:
        """The first step of ``total`` whose weights a plain mean takes in."""
        assert self.last_k is not None
        return max(1, total - self.last_k + 1)
