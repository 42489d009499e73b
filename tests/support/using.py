"""A model in use: its scores and texts, the same on every layout of ranks that computes them."""

import numpy as np

from megarc.data import open_stream
from megarc.inference import Sampling, Writing, evaluate, probe, sample_losses, window_losses, write
from megarc.model import Transformer, initialise
from megarc.science import MAKERS
from megarc.window import Window

TEXT = np.random.default_rng(3).integers(0, 50, 230).astype(np.uint16)
# also rows that two and four ranks do not divide
WINDOWS = (Window(19, 14, 9), Window(0, 16, 8), Window(3, 2, 1))


def built_model(config, tensor=None):
    model = Transformer(config, tensor=tensor)
    initialise(model, config, 5)
    return model.eval()


def documents_of(start, stop):
    return np.searchsorted(np.array([0, 30, 33, 90]), np.arange(start, stop), side="right") - 1


def scores(model, config):
    """Numbers by name, [k] each."""
    found = {}
    for number, window in enumerate(WINDOWS):
        targets = range(60, 121)
        found[f"text {number}"] = list(evaluate(model, TEXT, window, targets, batch=3).sums)
        inside = window_losses(model, TEXT, window, targets, documents=documents_of, batch=4)
        found[f"documents {number}"] = np.nan_to_num(inside).ravel().tolist()
    probed = probe(model, TEXT, WINDOWS[0], [5], range(60, 90))
    changes = (*probed.masks.values(), *probed.texts.values())
    found["R"] = [change.loss.mean for change in changes]
    found["R by row"] = [one.mean for change in changes for one in change.by_row]
    stream = open_stream(config.data, "valid", config.window.build(), config.seed, makers=MAKERS)
    samples = sample_losses(model, stream, 7, recents=[None, 3], batch=4)
    found["samples"] = [value for one in samples for value in one.sums.tolist()]
    return found


def texts(model):
    """Ids that the model writes: greedily, and drawn with a penalty; windows begin, move, end and give slots away."""
    found = []
    for window, sampling in (
        (WINDOWS[0], Sampling(temperature=0)),
        (WINDOWS[1], Sampling(min_p=0.01, repetition=1.2, seed=4)),
    ):
        listed = [Writing(TEXT[n : 3 * n * n + n + 1].tolist(), 9 + 5 * n, n) for n in range(4)]
        list(write(model, listed, window, sampling, slots=3))
        found += [one.ids for one in listed]
    return found


def models():
    """Keys of models in which attention differs."""
    plain = {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "vocabulary": 50, "initial_std": 0.3}
    return {
        "learned": {**plain, "learned_positions": 40, "tied": False, "attention_bias": "all"},
        "sliding": {**plain, "sliding_window": 6, "qk_norm": True, "causal_heads": 2},
        "experts": {**plain, "experts": {"count": 4, "active": 2, "shared": 1}},
    }
