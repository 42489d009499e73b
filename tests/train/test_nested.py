"""A run of a nested model: its widths' losses, stopped and resumed, and a width cut out of its checkpoint."""

from fractions import Fraction

import pytest
import torch
from support.ranks import run_jobs
from support.runs import config, full_state, metrics, pretrain
from support.scripts import python

from megarc.config import build
from megarc.errors import UserError
from megarc.inference import load_exported
from megarc.model import kept_of
from megarc.parallel import Topology
from megarc.science import MAKERS
from megarc.train import RunConfig, load_model, open_train, resolve

NESTED = {"model__nested": ["1/4", "1/2", 1], "model__ffn": 64}
TOKENS = torch.arange(2 * 40).view(2, 40) * 7 % 30


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nested")
    once = pretrain(folder / "once", 0, 6, **NESTED)
    first = pretrain(folder / "twice", 0, 6, until="3 steps", **NESTED)
    dense = pretrain(folder / "dense", 0, 2, model__ffn=64)
    nested = pretrain(folder / "from_dense", 0, 4, start_from=str(folder / "dense"), **NESTED)
    run_jobs([once, first, pretrain(folder / "twice", 0, 6, **NESTED), dense, nested], 1, folder)
    return folder


def test_held_out_loss_of_each_width(runs):
    names = [
        "heldout/width_0.25/nats_per_token",
        "heldout/width_0.5/nats_per_token",
        "heldout/nats_per_token",
    ]
    losses = [metrics(runs / "once", name) for name in names]
    assert all(len(found) == 2 for found in losses)
    assert not torch.equal(losses[0], losses[1]) and not torch.equal(losses[1], losses[2])


def test_a_resumed_run_draws_the_same_widths(runs):
    assert torch.equal(
        metrics(runs / "once", "train/nats_per_token"), metrics(runs / "twice", "train/nats_per_token")
    )
    other = full_state(runs / "twice")
    assert all(torch.equal(values, other[name]) for name, values in full_state(runs / "once").items())


def test_a_dense_run_is_the_origin_of_a_nested_one(runs):
    found = metrics(runs / "from_dense", "heldout/width_0.25/nats_per_token")
    assert len(found) == 2 and found.isfinite().all()


@pytest.mark.parametrize("widths", ["1/4", "1/2,1/4"])
def test_a_width_is_exported_as_a_dense_model(runs, tmp_path, widths):
    python("launch/export.py", "--run", runs / "once", "--to", tmp_path / "narrow", "--width", widths)
    narrow, _ = load_exported(tmp_path / "narrow")
    nested = load_model(runs / "once").model
    shares = [Fraction(share) for share in widths.split(",")]
    kept = [kept_of(nested.config, share) for share in (shares * 2)[:2]]
    assert narrow.config.nested is None and narrow.config.width_of_ffn == 64 * max(shares)
    with torch.no_grad():
        x = nested.embedding(TOKENS)
        for block, own in zip(nested.blocks, kept, strict=True):
            x = block(x, 24, kept=own)
        expected = nested.norm(x) @ nested.embedding.weight[: nested.config.tokens].T
        found = narrow.logits(TOKENS, slice(None), 24)[..., : nested.config.tokens]
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_width_that_is_none_is_refused(runs, tmp_path):
    said = python(
        "launch/export.py", "--run", runs / "once", "--to", tmp_path / "no", "--width", "1/3", code=2
    )
    assert "the width 1/3 is none that the model was trained with; it has 1/4, 1/2, 1" in said
    assert not (tmp_path / "no").exists()


def test_tensor_ranks_that_cannot_share_a_width_are_told_one_that_would_do(tmp_path):
    tree = config(tmp_path, 1, 6, model__nested=["1/4", 1], model__ffn=24, model__heads=8, model__kv_heads=8)
    run = build(RunConfig, tree, "test")
    resolve(run, open_train(run, MAKERS), Topology.fit(2, tensor=2))
    with pytest.raises(UserError, match=r"parallel.tensor 4 x 4 .* model.ffn 24; make it 16 or 32"):
        resolve(run, open_train(run, MAKERS), Topology.fit(4, tensor=4))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"objective__widths": "all"}, "need model.nested"),
        ({**NESTED, "objective__width_weights": [1, 2]}, "2 numbers for the 3 widths"),
        ({**NESTED, "objective__width_weights": [0, 0, 0]}, "not all 0"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        build(RunConfig, config(tmp_path, 1, 6, **keys), "test")
