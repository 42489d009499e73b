"""The rows of the parity table: every mix of parallelism, precision and variant, and how two are compared.

`benchmarks/parity.py` runs them for docs/parity.md, `tests/train/engine/test_parity.py` in a short form.
"""

import itertools
import json
from typing import NamedTuple

import torch

from support.pairs import RECOMPUTED, WINDOWS, window_keys, write_pairs
from support.ranks import run_jobs
from support.runs import config, full_state

SHARED_OUT = "_over_2"
"""Of a variant: experts are shared out over 2 data ranks; compared with one rank that has all."""


class Mix(NamedTuple):
    """A row: sizes, ZeRO stage, sequence parallelism, precision, and the variant of model or samples."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    zero: int = 1
    sequence: bool = False
    precision: str = "fp32"
    variant: str = "tied"
    layers: int = 2
    context: int = 1

    @property
    def ranks(self):
        return self.tensor * self.pipeline * self.data * self.context

    @property
    def one(self):
        """What it is compared with: one rank, the same model, precision and variant, nothing recomputed."""
        zero = 0 if self.precision == "fp32" else 1
        variant, _ = recomputed(self.variant.removesuffix(SHARED_OUT))
        return Mix(zero=zero, precision=self.precision, variant=variant, layers=self.layers)

    def __str__(self):
        where = f"tp{self.tensor}-pp{self.pipeline}-dp{self.data}-z{self.zero}"
        where += f"-context{self.context}" if self.context > 1 else ""
        return f"{where}{'-sequence' if self.sequence else ''}-{self.precision}-{self.variant}-{self.layers}"


VARIANTS = {
    "tied": {},
    "untied": {"model__tied": False},
    "rates": {
        "model__tied": False,
        "model__logit_cap": 0.2,
        "optimizer__rates": {"embedding": 2.0, "norm": 0.5, "readout": 0.25},
        "optimizer__decays": {"norm": 0.5, "embedding": 0.0},
    },
    "imported": {
        "model__tied": False,
        "model__qk_norm_over": "all",
        "model__attention_bias": "all",
        "model__norm_place": "after",
        "model__rope_skip_every": 2,
        "model__rope_scaling": {"kind": "yarn", "factor": 4.0, "original_rows": 16},
        "model__initial_std": 0.2,  # with the usual one, gradients behind the norms are all rounding
    },
    "short_recent": {"data__short_recent": 0.4},
    "muon": {"optimizer__name": "muon", "average__decay": 0.5},
    **{says: {"data__train": [{"kind": "annotated", "options": {"says": [says]}}]}
       for says in ("uniform", "weights", "row_weights", "recent", "documents", "positions")},
}  # fmt: skip
"""Keys of the run: head and embedding tied or not, all that imported models need, or (tied) what the source says
of its samples."""

OWN_ROWS = {
    "completep": {
        "model__parametrization": "completep",
        "model__base_hidden": 8,
        "model__base_layers": 1,
        "model__base_head_dim": 2,
    },
    # With the usual initial values, gradients of the decays' biases are all rounding.
    "mixers": {"model__mixers": "ssm crf ssm_attention attention", "model__initial_std": 0.2},
    "mixers_documents": {
        "model__mixers": "ssm crf ssm_attention attention",
        "model__crf_transitions": 2,
        "model__initial_std": 0.2,
        "data__train": [{"kind": "annotated", "options": {"says": ["documents"]}}],
    },
    "mixers_muon": {
        "model__mixers": "ssm crf ssm_attention attention",
        "model__nested": ["1/4", "1/2", 1],
        "model__initial_std": 0.2,
        "optimizer__name": "muon",
        "average__decay": 0.5,
    },
    # As to initial values: with the usual ones scores lie so close together that rounding could send rows elsewhere.
    "experts": {
        "model__experts": {"count": 4, "active": 2, "shared": 1, "bias_rate": 0.1, "router_z_loss": 0.01},
        "model__initial_std": 0.2,
    },
    "experts_loss": {
        "model__experts": {
            "count": 4,
            "active": 2,
            "scores": "sigmoid",
            "scale": 2.0,
            "dense_first": 1,
            "balance": "loss",
            "loss_weight": 0.1,
        },
        "model__initial_std": 0.2,
        "data__train": [{"kind": "annotated", "options": {"says": ["documents"]}}],
    },
    "experts_muon": {
        "model__experts": {"count": 4, "active": 1, "normalised": False, "bias_rate": 0.1},
        "model__initial_std": 0.2,
        "optimizer__name": "muon",
        "average__decay": 0.5,
    },
    "experts_completep": {
        "model__experts": {"count": 4, "active": 2, "balance": "loss"},
        "model__parametrization": "completep",
        "model__base_hidden": 8,
        "model__base_layers": 1,
        "model__initial_std": 0.2,
    },
    "sliding": {"model__sliding_window": 7},
    "causal_heads": {"model__causal_heads": 2, "model__sliding_window": 7},
    "causal_heads_documents": {
        "model__causal_heads": 2,
        "data__train": [{"kind": "annotated", "options": {"says": ["documents"]}}],
    },
    "nested": {"model__nested": ["1/4", "1/2", 1]},
    "nested_all": {
        "model__nested": ["1/4", "1/2", 1],
        "objective__widths": "all",
        "objective__width_weights": [1, 1, 2],
    },
    "muon_nested": {
        "model__nested": ["1/4", "1/2", 1],
        "optimizer__name": "muon",
        "optimizer__muon": {"equal_rows": True},
    },
}
"""Keys that have rows of their own: not every mix takes them, but each kind of part meets them."""

SHARED_WINDOWS = [
    Mix(zero=0, variant="row_weights", context=2),
    Mix(zero=1, variant="packed_stages", context=2),
    Mix(zero=2, precision="bf16", variant="mix", context=2),
    Mix(zero=3, variant="packed_mix_selective", context=2),
    Mix(data=2, zero=3, variant="mix_full", context=2),
    Mix(2, zero=2, sequence=True, variant="packed_sliding", context=2),
    Mix(1, 2, variant="packed_stages_full", context=2),
    Mix(zero=2, variant="muon", context=4),
    Mix(2, 2, sequence=True, variant="imported", context=2),
    *(Mix(zero=zero, variant=variant, context=2) for zero, variant in ((2, "experts"), (3, "experts_loss"))),
    Mix(1, 2, variant="packed_experts", context=2),
    Mix(zero=3, variant="causal_heads", context=2),
    Mix(2, zero=2, sequence=True, variant="causal_heads_documents", context=2),
    Mix(1, 2, variant="causal_heads_packed", context=2),
    Mix(zero=2, variant="causal_heads_mix", context=4),
    Mix(zero=3, variant="causal_heads_packed_mix", context=2),
]
"""Rows of ``parallel.context``: each ZeRO stage, each other dimension, and every way in which samples say what
rows see, with rows of R that bear loss."""

COMPARED = ("loss", "gradient norm", "held-out", "gradients", "weights")


def mixes(ranks=8):
    """The rows of the table that fit so many ranks, and those that they are compared with.

    Up to 2 ranks every layout, ZeRO stage and precision; on 4 and 8 each pair of settings; variants where
    a pipeline, ZeRO 3 or split rows meet them.
    """
    both = [
        *_product(ranks=2),
        Mix(2, 2, 1),
        Mix(2, 2, 1, sequence=True),
        Mix(1, 2, 2),
        Mix(1, 4, 1, layers=4),
        Mix(2, 1, 2, zero=1, sequence=True),
        Mix(2, 1, 2, zero=3, sequence=True),
        Mix(4, 1, 1, zero=3),
        Mix(2, 2, 2, sequence=True),
        Mix(4, 2, 1),
        *(Mix(1, 2, 1, variant=variant) for variant in VARIANTS if variant != "imported"),
        *(Mix(data=2, zero=3, variant=variant) for variant in VARIANTS if variant != "imported"),
        *(Mix(2, 2, 1, sequence=True, variant=variant) for variant in ("untied", "documents")),
        *(Mix(1, 4, 1, variant=variant, layers=4) for variant in ("untied", "recent")),
        *(Mix(2, 1, 2, zero=zero, variant="muon") for zero in (1, 3)),
        Mix(2, 2, 1, sequence=True, variant="muon"),
    ]
    fp32 = [
        Mix(2, 1, 2, zero=0, sequence=True),
        Mix(2, 1, 2, zero=2),
        Mix(4, 1, 1, zero=2, sequence=True),
        Mix(4, 1, 2, zero=1, sequence=True),
        Mix(2, 4, 1, sequence=True, layers=4),
        # Biases begin at 0, so after two steps in bf16 they are rounding alone.
        Mix(1, 2, 1, variant="imported"),
        Mix(data=2, zero=3, variant="imported"),
        Mix(2, 2, 1, sequence=True, variant="imported"),
        Mix(4, 1, 1, zero=2, variant="imported"),
        *(Mix(data=2, zero=zero, variant="muon") for zero in (0, 1, 2)),
        *(Mix(4, 1, 1, zero=zero, variant="muon") for zero in (0, 2)),
        Mix(2, 2, 2, sequence=True, variant="muon"),
        *(Mix(4, variant=variant) for variant in ("completep", "nested", "muon_nested")),
        *(Mix(1, 2, 1, variant=variant, layers=layers_of(variant)) for variant in OWN_ROWS),
        *(Mix(data=2, zero=3, variant=variant, layers=layers_of(variant)) for variant in OWN_ROWS),
        *(Mix(data=2, zero=zero, variant="mixers", layers=4) for zero in (0, 1, 2)),
        *(Mix(2, 2, 1, sequence=True, variant=one, layers=4) for one in ("mixers", "mixers_documents")),
        *(Mix(4, 1, 1, zero=2, variant=variant, layers=4) for variant in ("mixers", "mixers_muon")),
        Mix(2, 2, 1, sequence=True, variant="mixers_packed", layers=4),
        Mix(2, 1, 2, zero=2, variant="completep"),
        *(Mix(2, 2, 1, sequence=True, variant=variant) for variant in ("nested_all", "muon_nested")),
        *(Mix(data=2, zero=zero, variant="experts") for zero in (0, 1, 2)),
        *(Mix(2, 2, 1, sequence=True, variant=variant) for variant in ("experts", "experts_loss")),
        *(Mix(2, 1, 2, zero=3, variant=variant) for variant in ("experts", "experts_muon")),
        *(Mix(2, 2, 1, sequence=True, variant=one) for one in ("causal_heads", "causal_heads_documents")),
        Mix(4, 1, 1, zero=2, variant="causal_heads_documents"),
        Mix(4, 1, 1, zero=2, variant="experts"),
        *(Mix(data=2, zero=zero, variant="experts_over_2") for zero in (0, 1, 2)),
        Mix(data=4, zero=2, variant="experts_loss_over_2"),
        Mix(2, 1, 2, zero=1, variant="experts_over_2"),
        *(Mix(data=2, zero=zero, variant="experts_muon_over_2") for zero in (0, 2)),
        Mix(1, 2, 2, variant="experts_over_2"),
        Mix(data=2, variant="experts_completep_over_2"),
        Mix(data=2, zero=2, variant="experts_selective_over_2"),
        Mix(2, 1, 2, variant="experts_loss_full_over_2"),
        Mix(2, 1, 2, variant="experts_muon_over_2"),
        *(
            Mix(pipeline=pipeline, data=3 - pipeline, zero=zero, variant=variant, layers=layers_of(variant))
            for variant in (*WINDOWS, *RECOMPUTED)
            for pipeline, zero in ((1, 3), (2, 1))
        ),
        *(
            Mix(2, 2, 1, sequence=True, variant=variant)
            for variant in ("packed_sliding", "packed_sliding_stages", "causal_heads_packed_mix")
        ),
        *(Mix(data=2, zero=zero, variant="packed_stages") for zero in (0, 1, 2)),
        *(
            Mix(2, 2, 1, sequence=True, variant=variant)
            for variant in ("packed_stages", "packed_task", "mix")
        ),
        *(Mix(data=2, zero=2, precision="bf16", variant=variant) for variant in ("packed_stages", "mix")),
        *SHARED_WINDOWS,
        Mix(data=2, zero=2, precision="bf16", variant="mixers", layers=4),
        Mix(2, 2, 1, sequence=True, precision="bf16", variant="mixers", layers=4),
    ]
    return _sorted([*both, *fp32, *(mix._replace(precision="bf16") for mix in both)], ranks)


def recomputed(variant):
    """The variant that keeps all activations, and what ``variant`` computes again."""
    base, _, what = variant.rpartition("_")
    return (base, what) if what in ("full", "selective") else (variant, "none")


def layers_of(variant):
    """Layers of a row's model: a pattern of mixers has four."""
    return 4 if variant.startswith("mixers") else 2


def all_mixes(ranks=8):
    """Every layout that fits so many ranks; more than anyone runs each day."""
    wide = _product(ranks)
    return _sorted([*mixes(ranks), *wide, *(mix._replace(precision="bf16") for mix in wide)], ranks)


def _product(ranks):
    found = itertools.product((1, 2, 4), (1, 2, 4), (1, 2), (0, 1, 2, 3), (False, True))
    listed = (Mix(*keys, layers=max(2, keys[1])) for keys in found)
    return [mix for mix in listed if mix.ranks <= ranks]


def _sorted(listed, ranks):
    listed = {mix for mix in listed if mix.ranks <= ranks and _supported(mix)}
    return sorted(listed | {mix.one for mix in listed}, key=lambda mix: (mix.ranks, mix))


def _supported(mix):
    return not (
        (mix.pipeline > 1 and mix.zero != 1)
        or (mix.precision == "bf16" and mix.zero == 0)
        or (mix.sequence and mix.tensor == 1)  # nothing to split rows over
    )


def run_mixes(listed, folder, steps, **changes):
    """Runs them to ``folder``/NAME, one set of processes for each number of ranks."""
    if any(mix.variant in (*WINDOWS, *RECOMPUTED) for mix in listed):
        write_pairs(folder / "pairs")
    for world, same in itertools.groupby(
        sorted(listed, key=lambda mix: mix.ranks), key=lambda mix: mix.ranks
    ):
        run_jobs([job(mix, folder, steps, **changes) for mix in same], world, folder, timeout=1800)


def job(mix, folder, steps, **changes):
    own = mix.variant in (*WINDOWS, *RECOMPUTED)
    base = mix.variant.removesuffix(SHARED_OUT)
    plain, what = recomputed(base)
    keys = window_keys(base, folder / "pairs") if own else (VARIANTS | OWN_ROWS)[plain]
    if base != mix.variant:
        keys = {**keys, "parallel__expert": 2, "execution__recompute": what}
    tree = config(
        folder / str(mix), mix.zero, steps, parallel__tensor=mix.tensor, parallel__pipeline=mix.pipeline,
        parallel__sequence=mix.sequence, parallel__context=mix.context, precision=mix.precision,
        model__layers=mix.layers, batch__micro=4 // mix.data, validation__windows=3,
        **keys, **changes,
    )  # fmt: skip
    return {"do": "steps", "config": tree, "steps": steps}


def differences(folder, mix):
    """The largest relative differences of a mix to one rank: numbers by step, parameters by name.

    Gradients are Adam's first moments: the mean of the steps' clipped gradients. Of a parameter: the norm of
    the difference over the norm.
    """
    ours, theirs = (json.loads((folder / str(one) / "numbers.json").read_text()) for one in (mix.one, mix))
    found = {}
    for name, values in ours.items():
        here, there = torch.tensor(values), torch.tensor(theirs[name])
        found[name] = ((here - there).abs() / here.abs().clamp_min(1e-12)).max().item()
    ours, theirs = (full_state(folder / str(one)) for one in (mix.one, mix))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(values, theirs[name]) for name, values in ours.items() if name.endswith("/state"))
    for column, part in (("gradients", "/exp_avg"), ("weights", ("/master", "/average"))):
        found[column] = max(
            ((ours[name] - theirs[name]).norm() / ours[name].norm().clamp_min(1e-12)).item()
            for name in ours if name.endswith(part)
        )  # fmt: skip
    return found
