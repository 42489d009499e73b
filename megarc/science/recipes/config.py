"""The keys of a comparison."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from megarc.config import Config, Duration, key
from megarc.data import RecentLossConfig
from megarc.data.config import Share
from megarc.science.recipes.arms import ARMS, CAUSAL
from megarc.train import RunConfig


class CompareConfig(Config):
    """Arms that differ in their windows and losses, at the FLOPs of the first causal arm's run."""

    folder: Path = key(Path("runs/compare"), "the study's folder; the same command resumes the study in it")
    run: RunConfig = key(
        RunConfig,
        "model, data, batch, length (of an arm that is causal and predicts every row) and window [R | C]",
    )
    arms: list[str] = key(list(ARMS), f"which: {', '.join(ARMS)}")
    rates: list[float] = key([0.5, 1.0, 2.0], "peak learning rates that every arm tries, times optimizer.lr")
    warmups: list[Duration] = key([], "warm-ups that every arm tries; empty: schedule.warmup alone")
    seeds: int = key(5, "of each arm's best rate and warm-up: initial values and the data's order", ge=1)
    finals: int | None = key(
        None, "the best arms of each kind (causal, others) that are trained on more seeds; empty: all", ge=1
    )
    late: Share = key(0.8, "of the late arms' steps are causal, before [R | C]", gt=0, lt=1)
    mixed: Share = key(0.5, "of the mix arms' samples are causal", gt=0, lt=1)
    loss: RecentLossConfig = key(RecentLossConfig, "the loss on R of the arms that have one")
    targets: int = key(20_000, "held-out targets of a corpus, or windows of a task, that are scored", ge=1)

    @model_validator(mode="after")
    def _can_be_compared(self) -> CompareConfig:
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown:
            raise ValueError(f"arms has {unknown}; known are {', '.join(ARMS)}")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms {self.arms}: one is named twice; name it once")
        if not set(self.arms) & set(CAUSAL) or not set(self.arms) - set(CAUSAL):
            raise ValueError(
                f"arms {self.arms}: one at least must be causal ({', '.join(CAUSAL)}), and one not"
            )
        run = self.run
        if run.window.changes or run.objective.recent is not None or not run.window.recent:
            raise ValueError(
                "run.window is the plain window [R | C] of the comparison; the arms change it themselves"
            )
        if len(run.data.valid) != 1:
            raise ValueError(f"run.data.valid has {len(run.data.valid)} sources; the arms are scored on one")
        if run.batch.stages or run.batch.measured:
            raise ValueError(
                "run.batch: arms are compared with a batch of one size; leave stages and measured out"
            )
        for arm in ("late-c", "late-c+loss") if run.data.packs else ():
            if arm in self.arms:
                raise ValueError(
                    f"arms has {arm}, which in packed rows differs from causal in nothing; leave it out"
                )
        if not self.rates or any(rate <= 0 for rate in self.rates) or len(set(self.rates)) < len(self.rates):
            raise ValueError(f"rates is {self.rates}; give different numbers above 0")
        return self
