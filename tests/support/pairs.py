"""Short questions and answers, and the rows of the parity table that read them: packed rows, windows that change.

The keys are those of ``support.runs.config``; windows have 40 rows.
"""

import numpy as np

from megarc.corpus import IndexedWriter
from megarc.corpus.indexed.manifest import write_manifest
from megarc.corpus.packing.assemble import manifest_of

_CAUSAL, _STAGE = {"recent": 0, "causal": 40, "stride": 16}, {"recent": 24, "causal": 16, "stride": 8}
_STAGES = {"stages": [{"at": "0 steps", **_CAUSAL}, {"at": "1 steps", **_STAGE}]}
_MIXED = {"recent": 24, "causal": 16, "mix": [{"share": 0.5, "recent": 0}, {"share": 0.25, "recent": 8}]}
_LOSS = {"recent": {"share": 0.5, "mask": 0.3, "token": 39}}
_PACKED = {"packing": "best_fit", "question_weight": 0.5}
_TASK = {"kind": "late_clue"}

WINDOWS = {
    "packed": {"data": _PACKED},
    "packed_stages": {"data": _PACKED, "window": _STAGES, "objective": _LOSS},
    "packed_mix": {"data": _PACKED, "window": _MIXED},
    "stages": {"window": _STAGES, "objective": _LOSS},
    "mix": {"window": _MIXED, "objective": _LOSS},
    "packed_experts": {"data": _PACKED, "model__experts": {"count": 4, "active": 2, "bias_rate": 0.1}},
    "packed_task": {"data": {**_PACKED, "train": [_TASK], "valid": [_TASK]}, "window": _MIXED},
    "packed_sliding": {"data": _PACKED, "model__sliding_window": 5},
    "packed_sliding_stages": {
        "data": {**_PACKED, "segment_weights": {"3": 0.25, "30": 2.0}},
        "window": _STAGES,
        "objective": _LOSS,
        "model__sliding_window": 5,
        "average__decay": 0.5,
    },
    "causal_heads_packed": {
        "data": _PACKED,
        "window": _STAGES,
        "objective": {**_LOSS, "widths": "all"},
        "model__causal_heads": 2,
        "model__nested": ["1/4", "1/2", 1],
    },
    "causal_heads_mix": {"window": _MIXED, "objective": _LOSS, "model__causal_heads": 2},
    "causal_heads_packed_mix": {
        "data": {**_PACKED, "segment_weights": {"3": 0.25, "30": 2.0}},
        "window": _MIXED,
        "objective": {**_LOSS, "widths": "all"},
        "model__causal_heads": 2,
        "model__sliding_window": 7,
        "model__nested": ["1/4", "1/2", 1],
    },
    "hidden_context": {
        "window": {"recent": 0, "causal": 40, "stride": 16},
        "objective": {"recent": {**_LOSS["recent"], "rows": "context"}},
    },
    "mixers_packed": {
        "data": _PACKED,
        "window": _STAGES,
        "objective": _LOSS,
        "model__mixers": "ssm crf ssm_attention attention",
    },
    "mixers_mix": {
        "window": _MIXED,
        "objective": _LOSS,
        "model__mixers": "ssm crf ssm_attention attention",
        "model__parametrization": "completep",
        "model__base_hidden": 8,
        "model__base_layers": 1,
        "model__base_head_dim": 2,
    },
}
"""Documents packed into rows; windows that change after the first step, or by sample; a loss on R, or on hidden
tokens of a causal model. Sources that stand here come before the corpus."""

RECOMPUTED = {
    f"{variant}_{what}": {**WINDOWS[variant], "execution__recompute": what}
    for variant, what in (
        ("packed_stages", "full"),
        ("packed_mix", "selective"),
        ("mix", "full"),
        ("mixers_packed", "selective"),
    )
}
"""The same with recomputed activations; compared with one rank that keeps them."""


def write_pairs(prefix):
    """A corpus of 300 short questions and answers, ids below 39."""
    chance = np.random.default_rng(0)
    with IndexedWriter(prefix, np.uint16) as writer:
        for _ in range(300):
            question, answer = chance.integers(1, 14, 2).tolist()
            writer.add(chance.integers(0, 39, question + answer), answers=[question])
        write_manifest(prefix, manifest_of(writer.finish(), prefix))


def window_keys(variant, prefix):
    """Keys of a run on that corpus."""
    keys = (WINDOWS | RECOMPUTED)[variant]
    data = dict(keys.get("data", {}))
    for which in ("train", "valid"):
        data[which] = [*data.get(which, []), {"path": str(prefix)}]
    # With the usual initial values, gradients of queries are so small that rounding shows.
    return {**keys, "data": data, "model__vocabulary": 40, "model__initial_std": 0.2}
