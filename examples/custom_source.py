"""Trains a model on a source of your own: numbers that the model must repeat in reverse order.

    python examples/custom_source.py

R holds eight digits; C holds the same digits reversed. Sample k depends only on (seed, k), so that a run reads the same
samples on any number of ranks and after any stop.
"""

from datetime import timedelta
from pathlib import Path

import numpy as np

from megarc.config import build
from megarc.data import Facts, Sample, SourceConfig
from megarc.parallel import disconnect
from megarc.rank_environment import read_rank_environment
from megarc.train import Ending, RunConfig, load_model, pretrain, start
from megarc.window import Window

DIGITS = 8
EQUALS = 10  # the token between the digits and their reverse


class Reversed:
    """``d1 .. d8 = d8 .. d1``: a megarc.data.Source is anything with these four members."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.digest = f"reversed-digits-{seed}"  # another digest: other samples
        self.facts = Facts("reversed digits", vocabulary=11)

    def __len__(self) -> int:
        return 2**32

    def read(self, k: int) -> Sample:
        digits = np.random.Generator(np.random.Philox(key=[self.seed, k])).integers(0, 10, DIGITS)
        return Sample(np.concatenate([digits, [EQUALS], digits[::-1]]))


def make_reversed(config: SourceConfig, window: Window) -> Reversed:
    """What ``data.train: [{kind: reversed, options: {seed: 1}}]`` makes."""
    return Reversed(config.options.get("seed", 0))


CONFIG = {
    "length": "80 steps",
    "window": {"recent": DIGITS, "causal": DIGITS},  # row 8 holds "=" and predicts the first reversed digit
    "model": {"layers": 2, "hidden": 64, "heads": 4, "learned_positions": 2 * DIGITS},
    "batch": {"size": 64},
    "optimizer": {"lr": 5e-3},
    "data": {
        "train": [{"kind": "reversed", "options": {"seed": 1}}],
        "valid": [{"kind": "reversed", "options": {"seed": 2}}],
    },
    "logging": {"every": 20, "tensorboard": False},
}


def main(folder: Path = Path("runs/reversed")) -> float:
    """Trains the model; returns its held-out accuracy."""
    config = build(RunConfig, {**CONFIG, "folder": str(folder)}, "examples/custom_source.py")
    begun = start(read_rank_environment(), lambda: config, timedelta(minutes=5))
    try:
        ending = pretrain(begun.config, begun.groups, {"reversed": make_reversed})
    finally:
        disconnect()
    assert ending is Ending.FINISHED
    accuracy = right_answers(folder)
    print(f"digits that are right: {100 * accuracy:.0f} % (chance: 10 %)")
    return accuracy


def right_answers(folder: Path) -> float:
    """The share of right digits over 200 samples that training has not read."""
    import torch

    model = load_model(folder).model
    heldout = Reversed(seed=3)
    tokens = torch.as_tensor(np.stack([heldout.read(k).tokens for k in range(200)]))
    with torch.inference_mode():
        likeliest = model.logits(tokens[:, :-1], slice(DIGITS, 2 * DIGITS), DIGITS).argmax(-1)
    return float((likeliest == tokens[:, DIGITS + 1 :]).float().mean())


if __name__ == "__main__":
    main()
