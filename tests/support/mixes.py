"""The rows of the parity table: every mix of parallelism, precision and variant, and how two are compared.

`benchmarks/parity.py` runs them for docs/parity.md, `tests/train/engine/test_parity.py` in a short form.
"""

import itertools
import json
from typing import NamedTuple

import torch

from support.ranks import run_jobs
from support.runs import config, full_state


class Mix(NamedTuple):
    """A row: sizes, ZeRO stage, sequence parallelism, precision, and the variant of model or samples."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    zero: int = 1
    sequence: bool = False
    precision: str = "fp32"
    variant: str = "tied"

    @property
    def ranks(self):
        return self.tensor * self.pipeline * self.data

    @property
    def one(self):
        """What it is compared with: one rank, the same precision and variant."""
        return Mix(zero=0 if self.precision == "fp32" else 1, precision=self.precision, variant=self.variant)

    def __str__(self):
        where = f"tp{self.tensor}-pp{self.pipeline}-dp{self.data}-z{self.zero}"
        return f"{where}{'-sequence' if self.sequence else ''}-{self.precision}-{self.variant}"


VARIANTS = {
    "tied": {},
    "untied": {"model__tied": False},
    "short_recent": {"data__short_recent": 0.4},
    **{says: {"data__train": [{"kind": "annotated", "options": {"says": [says]}}]}
       for says in ("uniform", "weights", "recent", "documents", "positions")},
}  # fmt: skip
"""Keys of the run: head and embedding tied or not, or (tied) what the source says of its samples."""

COMPARED = ("loss", "gradient norm", "held-out", "gradients", "weights")


def mixes(ranks=8):
    """All that fit so many ranks, those that are compared with and those that are supported."""
    found = [
        Mix(*sizes, zero, sequence, precision)
        for *sizes, zero, sequence, precision in itertools.product(
            (1, 2, 4), (1, 2, 4), (1, 2), (0, 1, 2, 3), (False, True), ("fp32", "bf16")
        )
    ]
    layouts = [Mix(1, 2, 1), Mix(1, 4, 1), Mix(2, 2, 1, sequence=True), Mix(data=2, zero=3)]
    found += [
        layout._replace(precision=precision, variant=variant)
        for variant, layout, precision in itertools.product(VARIANTS, layouts, ("fp32", "bf16"))
        if variant != "tied"
    ]
    found += [mix.one for mix in found]
    return sorted(
        {mix for mix in found if mix.ranks <= ranks and _supported(mix)}, key=lambda mix: (mix.ranks, mix)
    )


def _supported(mix):
    return not (
        (mix.pipeline > 1 and mix.zero != 1)
        or (mix.precision == "bf16" and mix.zero == 0)
        or (mix.sequence and mix.tensor == 1)  # nothing to split rows over
    )


def run_mixes(listed, folder, steps, **changes):
    """Runs them to ``folder``/NAME, one set of processes for each number of ranks."""
    for world, same in itertools.groupby(
        sorted(listed, key=lambda mix: mix.ranks), key=lambda mix: mix.ranks
    ):
        run_jobs([job(mix, folder, steps, **changes) for mix in same], world, folder, timeout=1800)


def job(mix, folder, steps, **changes):
    tree = config(
        folder / str(mix), mix.zero, steps, parallel__tensor=mix.tensor, parallel__pipeline=mix.pipeline,
        parallel__sequence=mix.sequence, precision=mix.precision, model__layers=4,
        **VARIANTS[mix.variant], **changes,
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
        found[name] = ((here - there).abs() / here.abs()).max().item()
    ours, theirs = (full_state(folder / str(one)) for one in (mix.one, mix))
    assert ours.keys() == theirs.keys()
    for column, part in (("gradients", "/exp_avg"), ("weights", "/master")):
        found[column] = max(
            ((ours[name] - theirs[name]).norm() / ours[name].norm().clamp_min(1e-12)).item()
            for name in ours if name.endswith(part)
        )  # fmt: skip
    return found
