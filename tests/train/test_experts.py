"""A run of a mixture of experts: resumed, recomputed, with other micro-batches, and its model in use."""

import json

import pytest
import torch
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain

from megarc.config import build
from megarc.errors import UserError
from megarc.inference import Sampling, Writing, write
from megarc.report import expert_loads
from megarc.train import RunConfig, load_model

EXPERTS = {
    "model__experts": {"count": 4, "active": 2, "shared": 1, "bias_rate": 0.05, "router_z_loss": 0.01},
    "model__initial_std": 0.2,
}
LOSS = {
    "model__experts": {"count": 4, "active": 2, "balance": "loss", "loss_weight": 0.1},
    "model__initial_std": 0.2,
}
BIAS = "blocks.1.feed_forward.router.balance/state"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")

    def job(name, keys=EXPERTS, zero=2, **changes):
        return pretrain(folder / name, zero, 4, **keys, **changes)

    jobs = [
        job("once"),
        job("twice", until="2 steps"),
        job("twice"),
        job("full", execution__recompute="full"),
        job("selective", zero=3, execution__recompute="selective"),
        job("micro", batch__micro=1, batch__size=8),
        job("over", zero=1, parallel__expert=2, health={"self_check": "always"}),
        job("loss", LOSS),
        job("loss_micro", LOSS, batch__micro=1, batch__size=8, execution__recompute="full"),
    ]
    run_jobs(jobs, 2, folder)
    return folder


def same(one, other):
    ours, theirs = full_state(one), full_state(other)
    assert ours.keys() == theirs.keys()
    return [name for name, values in ours.items() if not torch.equal(values, theirs[name])]


def test_a_resumed_run_has_the_same_bits(runs):
    """The bias is state: it goes on from where it stood."""
    assert same(runs / "once", runs / "twice") == []
    assert full_state(runs / "once")[BIAS].abs().max() > 0.05


def test_recomputed_activations_change_nothing_and_count_once(runs):
    assert same(runs / "once", runs / "full") == []
    assert counts(runs / "once") == counts(runs / "full") == counts(runs / "selective")
    assert torch.equal(full_state(runs / "once")[BIAS], full_state(runs / "selective")[BIAS])


@pytest.mark.parametrize("names", [("once", "micro"), ("loss", "loss_micro")], ids=str)
def test_penalties_and_counts_do_not_depend_on_micro_batches(runs, names):
    one, other = (runs / name for name in names)
    assert counts(one) == counts(other)
    for number in ("train/nats_per_token", "train/gradient_norm"):
        assert torch.allclose(metrics(one, number), metrics(other, number), rtol=1e-5), number


def counts(folder):
    return [json.loads(line)["rows"] for line in (folder / "experts.jsonl").read_text().splitlines()]


def test_metrics_of_experts(runs):
    """All rows of the step count, those of R too: 8 samples of 40 rows, 2 experts each."""
    for line in counts(runs / "once"):
        assert line.keys() == {"0", "1"} and all(sum(one) == 8 * 40 * 2 for one in line.values())
    assert len(counts(runs / "twice")) == 4  # the resumed run goes on in the same file
    for name in ("busiest", "idlest", "entropy", "balance_loss", "router_z_loss", "dropped"):
        assert len(metrics(runs / "once", f"experts/{name}")) == 4
    assert (metrics(runs / "once", "experts/busiest") >= 1).all()
    assert (metrics(runs / "once", "experts/dropped") == 0).all()


def test_a_picture_of_experts(runs, tmp_path):
    expert_loads(runs / "once" / "experts.jsonl", tmp_path / "experts.png")
    assert (tmp_path / "experts.png").stat().st_size > 5000
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UserError, match="no rows of experts"):
        expert_loads(tmp_path / "none.jsonl", tmp_path / "none.png")


def test_generation_and_logits_of_a_saved_run(runs):
    """Token by token with a cache, as all at once."""
    saved = load_model(runs / "once")
    prompt = torch.arange(1, 25) * 7 % 24
    text = Writing(prompt.tolist(), 6, 0)
    list(write(saved.model, [text], saved.config.window.build(), Sampling(temperature=0)))
    with torch.no_grad():
        logits = saved.model.logits(torch.tensor([text.ids[:-1]]), slice(23, None), 23)
    assert logits[0].argmax(-1).tolist() == text.ids[24:]
    found = {name: one for name, one in saved.model.named_buffers() if name.endswith("balance")}
    assert torch.equal(found[BIAS.removesuffix("/state")], full_state(runs / "once")[BIAS][0])


def test_experts_on_two_data_ranks(runs):
    """The self-check of the start has compared a tiny model with experts on both ranks with one rank."""
    assert counts(runs / "over") == counts(runs / "once")
    ours, theirs = (full_state(runs / name) for name in ("over", "once"))
    assert all(torch.allclose(values, theirs[name], rtol=1e-4, atol=1e-6) for name, values in ours.items())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"parallel": {"expert": 2}}, "model.experts is not given"),
        ({"model": {"experts": {"count": 6}}, "parallel": {"expert": 4}}, "use a count of 4 or 8"),
        ({"model": {"experts": {}}, "parallel": {"expert": 2, "zero": 3}}, "use parallel.zero=0, 1 or 2"),
        (
            {"model": {"experts": {}}, "parallel": {"expert": 2, "context": 2}},
            "context 2 with parallel.expert",
        ),
        (
            {"model": {"experts": {}}, "parallel": {"expert": 2}, "optimizer": {"library": "apex"}},
            "needs optimizer.library=torch",
        ),
    ],
)
def test_experts_that_ranks_cannot_share_out(keys, words):
    with pytest.raises(UserError, match=words):
        build(RunConfig, keys, "test")


@pytest.mark.parametrize("name", ["fp8", "compile"])
def test_what_was_not_tried_is_refused(name):
    with pytest.raises(UserError, match=f"execution.{name} with model.experts is not supported"):
        build(RunConfig, {"model": {"experts": {}}, "execution": {name: True}}, "test")
