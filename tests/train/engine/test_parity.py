"""Every number of ranks and ZeRO stage trains the same model, and goes on from any other's checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from support.mixes import COMPARED, OWN_ROWS, VARIANTS, Mix, differences, job, mixes, run_mixes
from support.ranks import run_jobs
from support.runs import config, full_state, metrics, pretrain

from megarc.config import build
from megarc.plan import dry_run
from megarc.train import RunConfig
from megarc.train.checkpoint import latest

STEPS = 6
WHOLE = (2, 2, 2, 1, True)  # tensor, pipeline, data, ZeRO stage, sequence
SWITCHES = ["context", "full", "selective", "split-selective", "offload-1", "offload-3", "node", "every-2"]

TOLERANCE = {
    # Small gradients are sums of numbers that cancel; a rank with fewer samples takes them in another order, and Adam
    # hands the difference on to weights.
    "fp32": {**dict.fromkeys(COMPARED, 1e-5), "gradients": 3e-5, "weights": 3e-5},
    # Sums are rounded elsewhere. A parameter whose gradient gets lost differs by 1, ten times what is allowed.
    "bf16": {"loss": 1e-3, "gradient norm": 5e-3, "held-out": 1e-3, "gradients": 0.08, "weights": 0.04},
}


def layout(mix):
    tensor, pipeline, _, zero, sequence, *context = mix
    return {
        "parallel__context": context[0] if context else 1,
        "parallel__tensor": tensor,
        "parallel__pipeline": pipeline,
        "parallel__sequence": sequence,
        "parallel__zero": zero,
    }


def ranks(mix):
    return mix[0] * mix[1] * mix[2] * (mix[5] if len(mix) > 5 else 1)


def assert_close(one, other, tolerance):
    there = full_state(other)
    for part, values in full_state(one).items():
        scale = values.abs().max().clamp_min(1e-8)
        assert ((values - there[part]).abs().max() / scale) < tolerance, part


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """The rows of docs/parity.md in a short form: two steps of each."""
    folder = tmp_path_factory.mktemp("rows")
    run_mixes(mixes(), folder, 2)
    return folder


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mix", mixes(), ids=str)
def test_a_row_of_the_parity_table(rows, mix):
    """Losses, gradient norms, and every parameter's gradient and value against one rank of the same precision."""
    found = differences(rows, mix)
    assert set(found) == set(COMPARED)
    allowed = TOLERANCE[mix.precision]
    if mix.variant.startswith("mixers") and mix.precision == "bf16":
        # Some gradients are small: in bf16 one rank's own is .15 from its gradient in fp32, and attention's is .14.
        allowed = {**{name: 3 * value for name, value in allowed.items()}, "held-out": 6e-3}
    for name, value in found.items():
        assert value <= allowed[name], (name, value)


EXPERTS = [mix for mix in mixes() if "experts" in mix.variant and mix.ranks > 1]


@pytest.mark.parametrize("mix", EXPERTS, ids=str)
def test_rows_go_to_the_same_experts_on_every_layout(rows, mix):
    """Every layer's rows of every expert, exactly."""
    ours, theirs = (json.loads((rows / str(one) / "counts.json").read_text()) for one in (mix, mix.one))
    assert ours == theirs and ours


def test_right_guesses_are_counted_alike_in_every_layout(rows):
    """In fp32; so heldout/accuracy is the same wherever the ids of a row lie on several ranks."""
    layouts = [mix for mix in mixes() if mix.precision == "fp32" and mix.ranks > 1]
    found = {mix: json.loads((rows / str(mix) / "right.json").read_text()) for mix in mixes()}
    assert sum(sum(found[mix]) for mix in layouts if mix.tensor > 1) > 0, (
        "nothing was right, so nothing is shown"
    )
    for mix in layouts:
        assert found[mix] == pytest.approx(found[mix.one]), mix  # weights may be fractions


MUON = [mix for mix in mixes() if mix.variant in ("muon", "experts_muon_over_2") and mix.ranks > 1]


@pytest.mark.parametrize("mix", MUON, ids=str)
def test_what_muon_sends_is_what_the_dry_run_says(rows, mix):
    """Counted at the all-to-alls of each rank; and, over all ranks of a stage, the closed forms of ZeRO 0 and 3."""
    tree = job(mix, rows, 2)["config"]
    tree["model"]["vocabulary"] = 25
    together = 0
    for rank in range(mix.ranks):
        run = dry_run(build(RunConfig, tree, "test"), mix.ranks, rank)
        said = [one.elements for one in run.collectives if one.what.startswith("all_to_all")]
        assert json.loads((rows / str(mix) / f"sent-{rank}.json").read_text()) == said * 2, "two steps"
        together += sum(said)
    alone = mix.layers * (2 * 32 * 32 + 128 * 32)  # query, out and down
    matrices = alone + mix.layers * (2 * 2 * 8 * 32 + 2 * 128 * 32)
    if mix.variant != "muon":
        return
    if mix.tensor == 1 and mix.zero == 0:
        assert together == matrices * (mix.data - 1)
    if mix.tensor == 1 and mix.zero == 3:
        # Of two that are stored together, each data rank of two holds one whole.
        assert (mix.data, together) == (2, alone)


@pytest.mark.parametrize("mix", sorted({mix.one for mix in mixes()}), ids=str)
def test_every_parameter_has_a_gradient(rows, mix):
    """So that one that is lost elsewhere differs by 1, ten times what is allowed."""
    for name, values in full_state(rows / str(mix)).items():
        if name.endswith("/exp_avg"):
            assert values.norm() > 1e-6, name


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """One process with ZeRO 0, and the same run with each switch; one pool of ranks for each world size."""
    folder = tmp_path_factory.mktemp("runs")
    pools = {1: [pretrain(folder / "one", 0, STEPS)], 2: [], 4: []}
    pools[2].append(pretrain(folder / "context", 2, STEPS, parallel__context=2))
    pools[2].append(pretrain(folder / "full", 3, STEPS, execution__recompute="full"))
    pools[2].append(pretrain(folder / "selective", 2, STEPS, execution__recompute="selective"))
    pools[2].append(pretrain(folder / "offload-1", 1, STEPS, parallel__offload="optimizer"))
    pools[2].append(pretrain(folder / "offload-3", 3, STEPS, parallel__offload="all"))
    pools[2].append(
        pretrain(folder / "every-2", 1, STEPS, execution__recompute="full", execution__recompute_every=2)
    )
    pools[4].append(pretrain(folder / "node", 3, STEPS, parallel__node=2))
    split = {"parallel__tensor": 2, "parallel__pipeline": 2, "parallel__sequence": True}
    pools[4].append(pretrain(folder / "split-selective", 1, STEPS, **split, execution__recompute="selective"))
    pools[8] = [pretrain(folder / "whole", 1, STEPS, **layout(WHOLE))]
    for world, jobs in pools.items():
        run_jobs(jobs, world, folder)
    return folder


@pytest.mark.parametrize("switch", [*SWITCHES, "whole"])
def test_equals_one_process(runs, switch):
    for number in ("train/nats_per_token", "train/gradient_norm", "heldout/nats_per_token"):
        one, other = metrics(runs / "one", number), metrics(runs / switch, number)
        assert len(one) >= 2
        assert torch.allclose(one, other, rtol=1e-5), number
    # Adam divides by a root: where a gradient is all rounding, so is its direction.
    assert_close(runs / "one", runs / switch, 2e-4)


def test_context_ranks_count_the_flops_of_one_window(runs):
    """MFU is FLOPs over time and ranks; without time and ranks nothing is left but the FLOPs a token."""
    for name in ("speed/mfu_exact_mask", "speed/mfu_full_square"):
        one, two = (
            metrics(runs / run, name) / metrics(runs / run, "speed/processed_tokens_per_second")
            for run in ("one", "context")
        )
        assert torch.allclose(one, 2 * two, rtol=1e-6), name


def test_gradients_were_clipped(runs):
    assert (metrics(runs / "one", "train/gradient_norm") > 0.5).all()


def test_goes_on_at_any_other_topology(runs, tmp_path):
    """One run: tp 2 pp 2 dp 2, then one rank with ZeRO 3, then context 2 with ZeRO 0, then tp 4 with ZeRO 2."""
    folder = tmp_path / "run"
    steps = iter((2, 3, 5, STEPS))
    for mix in ((2, 2, 2, 1, True), (1, 1, 1, 3, False), (1, 1, 1, 0, False, 2), (4, 1, 1, 2, True)):
        run_jobs([pretrain(folder, 1, next(steps), **layout(mix))], ranks(mix), tmp_path)
    assert torch.allclose(
        metrics(runs / "one", "train/nats_per_token"), metrics(folder, "train/nats_per_token"), rtol=1e-5
    )
    assert_close(runs / "one", folder, 2e-4)


def test_state_reshards_bit_for_bit(rows, runs, tmp_path):
    """Loaded and saved again at another topology, not a bit of master or moments differs, AdamW's or Muon's."""
    started = {
        "adamw": runs / "whole" / "checkpoints",
        "muon": rows / str(Mix(2, 1, 2, zero=3, variant="muon")) / "checkpoints",
        "experts": rows / str(Mix(2, 2, 1, sequence=True, variant="experts")) / "checkpoints",
        "mixers": rows / str(Mix(2, 2, 1, sequence=True, variant="mixers", layers=4)) / "checkpoints",
        "mixers_muon": rows / str(Mix(data=2, zero=3, variant="mixers_muon", layers=4)) / "checkpoints",
    }
    there = {name: latest(folder).folder for name, folder in started.items()}
    chain = [
        (4, 1, 1, 3, True),
        (1, 2, 2, 1, False),
        (2, 2, 1, 1, True),
        (1, 1, 1, 0, False, 2),
        (1, 1, 2, 2, False),
        (1, 2, 1, 1, False, 2),
    ]
    for number, mix in enumerate(chain):
        precision = "bf16" if number == 4 else "fp32"  # masters and moments stay float32
        jobs = []
        for name, source in there.items():
            target = tmp_path / name / str(number) / "checkpoints"
            own = (VARIANTS | OWN_ROWS).get(name, {}) | ({"model__layers": 4} if "mixers" in name else {})
            if name == "experts" and mix[1:3] == (1, 2):
                own = {**own, "parallel__expert": 2}
            if name not in ("adamw", "muon"):  # refused with context ranks: as many data ranks in their place
                own = {**own, "parallel__context": 1}
            tree = config(tmp_path / "x", 1, STEPS, precision=precision, **layout(mix) | own)
            jobs.append({"do": "resave", "config": tree, "from": str(source), "to": str(target)})
            there[name] = target / source.name
        run_jobs(jobs, ranks(mix), tmp_path)
    for name, folder in started.items():
        start = full_state(folder)
        assert any(part.endswith("/exp_avg") for part in start)
        for number in range(len(chain)):
            again = full_state(tmp_path / name / str(number) / "checkpoints")
            assert start.keys() == again.keys()
            assert all(torch.equal(values, again[part]) for part, values in start.items())
