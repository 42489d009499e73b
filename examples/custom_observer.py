"""Watches a run with an observer of your own: the loss and gradient norm of every step, as CSV.

    python examples/custom_observer.py

All ranks call an observer's hooks in the same order; a hook that you do not need is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from megarc.config import build
from megarc.parallel import disconnect
from megarc.rank_environment import read_rank_environment
from megarc.science import MAKERS
from megarc.train import Ending, Engine, Moment, Observer, RunConfig, pretrain, start
from megarc.train.loop.observer import Done


class GradientNorms(Observer):
    """Writes ``step, loss, gradient norm`` of every step to a file.

    Steps are queued on the device. ``settled`` gives the numbers of all steps since the last call, after they have been
    read from the device together; reading a tensor in ``after_step`` would make the device wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, engine: Engine, moment: Moment) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("a", newline="")

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> Ending | None:
        rows = [(step.step, f"{step.loss:.6f}", f"{step.gradient_norm:.6f}") for step in steps]
        csv.writer(self.file).writerows(rows)
        return None  # an Ending would end the run

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        self.file.close()


CONFIG = {
    "length": "20 steps",
    "window": {"recent": 24, "causal": 16, "stride": 16},
    "model": {"layers": 2, "hidden": 32, "heads": 2},
    "data": {"train": [{"kind": "pointer_chase"}]},
    "logging": {"every": 10, "tensorboard": False},
}


def main(folder: Path = Path("runs/observed")) -> Path:
    """Trains a small model; returns the file that the observer wrote."""
    config = build(RunConfig, {**CONFIG, "folder": str(folder)}, "examples/custom_observer.py")
    norms = folder.with_suffix(".csv")
    begun = start(read_rank_environment(), lambda: config, timedelta(minutes=5))
    try:
        pretrain(begun.config, begun.groups, MAKERS, watch=[GradientNorms(norms)])
    finally:
        disconnect()
    print(f"{norms}: {len(norms.read_text().splitlines())} steps")
    return norms


if __name__ == "__main__":
    main()
