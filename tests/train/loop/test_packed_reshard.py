"""Packed rows whose windows change, with a loss on R: a run goes on at another topology, and its state bit for bit."""

from pathlib import Path

import pytest
import torch
from support.pairs import window_keys, write_pairs
from support.ranks import run_jobs
from support.runs import config, full_state, metrics, pretrain

STEPS = 6
KINDS = {
    "stages": {"variant": "packed_sliding_stages", "at": "3 steps"},
    "mix": {"variant": "packed_mix", "objective": {"recent": {"share": 0.5, "mask": 0.3, "token": 39}}},
}
TENSOR = {"parallel__tensor": 2, "parallel__sequence": True, "parallel__zero": 1}
DATA = {zero: {"parallel__zero": zero, "batch__micro": 2} for zero in (2, 3)}
RESHARDED = [DATA[3], TENSOR, DATA[2]]


def keys_of(kind: str, pairs: Path) -> dict:
    """Of a run in which the kind's windows change while it goes on elsewhere."""
    found = window_keys(KINDS[kind]["variant"], pairs)
    if kind == "stages":
        first, second = found["window"]["stages"]
        found["window"] = {"stages": [first, {**second, "at": KINDS[kind]["at"]}]}
    else:
        found |= {"objective": KINDS[kind]["objective"], "average__decay": 0.5}
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``KIND-one`` in one go on one rank; ``KIND`` on tp 2, dp 2 with ZeRO 3, one rank, then tp 2; and its copies."""
    folder = tmp_path_factory.mktemp("reshard")
    write_pairs(folder / "pairs")

    def part(kind: str, until: int, **changes: object) -> dict:
        return pretrain(
            folder / kind, 1, STEPS, until=f"{until} steps", **keys_of(kind, folder / "pairs"), **changes
        )

    both = [(kind, keys_of(kind, folder / "pairs")) for kind in KINDS]
    run_jobs(
        [part(kind, until, **changes) for kind in KINDS for until, changes in ((2, TENSOR), (4, DATA[3]))],
        2,
        folder,
    )
    whole = [pretrain(folder / f"{kind}-one", 0, STEPS, **keys) for kind, keys in both]
    run_jobs([*whole, *(part(kind, 5) for kind in KINDS)], 1, folder)
    jobs = [part(kind, STEPS, **TENSOR) for kind in KINDS]
    for kind, keys in both:
        there = folder / kind / "checkpoints" / f"step-{STEPS:09d}"
        for number, changes in enumerate(RESHARDED):
            target = folder / f"{kind}-{number}" / "checkpoints"
            tree = config(folder / "x", 1, STEPS, **{**keys, **changes})
            jobs.append({"do": "resave", "config": tree, "from": str(there), "to": str(target)})
            there = target / there.name
    run_jobs(jobs, 2, folder)
    return folder


@pytest.mark.parametrize("kind", list(KINDS))
def test_goes_on_at_another_topology(runs: Path, kind: str) -> None:
    one, other = runs / f"{kind}-one", runs / kind
    for number in ("train/nats_per_token", "train/gradient_norm"):
        ours, theirs = metrics(one, number), metrics(other, number)
        assert len(ours) == STEPS and torch.allclose(ours, theirs, rtol=1e-5), number
    # Held-out loss is also scored where a part ends.
    ours, theirs = (metrics(run, "heldout/nats_per_token")[-1] for run in (one, other))
    assert torch.allclose(ours, theirs, rtol=1e-5)
    there, parts = full_state(other), full_state(one)
    assert any(part.endswith("/average") for part in parts)
    for part, values in parts.items():
        assert (values - there[part]).abs().max() / values.abs().max().clamp_min(1e-8) < 2e-4, part


@pytest.mark.parametrize("kind", list(KINDS))
def test_its_state_reshards_bit_for_bit(runs: Path, kind: str) -> None:
    """Master, moments and average, between tensor and data parallelism with ZeRO 1, 2 and 3."""
    start = full_state(runs / kind)
    for number in range(len(RESHARDED)):
        again = full_state(runs / f"{kind}-{number}" / "checkpoints")
        assert start.keys() == again.keys()
        assert all(torch.equal(values, again[part]) for part, values in start.items()), RESHARDED[number]
