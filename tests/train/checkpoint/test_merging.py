"""A merge is the brute-force mean of checkpoints; its weights are what a decay of the learning rate would have left."""

import runpy
import sys

import pytest
import torch
from support.runs import config
from support.scripts import ROOT

from megarc.config import build
from megarc.errors import UserError
from megarc.inference import export, load_exported
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.science import MAKERS
from megarc.train import (
    RunConfig,
    decay_weights,
    find_checkpoint,
    finished,
    full_masters,
    load_model,
    merged,
    pretrain,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Three checkpoints of one run, and one of a model of another width."""
    folder, other = (tmp_path_factory.mktemp(name) for name in ("run", "other"))
    groups = connect(meet(ALONE), "cpu")
    keys = {"checkpoint": {"every": "2 steps", "keep": 3}, "average": {"decay": 0.5}}
    pretrain(build(RunConfig, config(folder, 1, 6, **keys), "test"), groups, MAKERS)
    pretrain(
        build(RunConfig, config(other, 1, 2, model={"layers": 1, "hidden": 16, "heads": 2}), "test"),
        groups,
        MAKERS,
    )
    disconnect()
    return [find_checkpoint(one) for one in (*finished(folder / "checkpoints"), other)]


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_equals_brute_force(checkpoints, tmp_path, shape, average):
    *found, _ = checkpoints
    weights = decay_weights(3, shape)
    export(merged(found, weights, average=average), *_facts(found[0]), tmp_path)
    model, _ = load_exported(tmp_path)
    each = [dict(full_masters(one, average=average)) for one in found]
    assert not torch.equal(each[0]["norm.weight"], each[2]["norm.weight"])
    for name, parameter in model.named_parameters():
        mean = sum(weight * values[name].double() for weight, values in zip(weights, each, strict=True))
        torch.testing.assert_close(parameter.detach().flatten().double(), mean, rtol=1e-6, atol=1e-8)


def _facts(checkpoint):
    saved = load_model(checkpoint.folder).config
    return saved.model, saved.window.build()


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_weights_replay_a_decay(shape):
    """A walk whose k-th stretch is scaled by the decay ends where the weighted mean of its points lies."""
    stretches = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = decay_weights(5, shape)
    assert sum(weights) == pytest.approx(1.0) and min(weights) > 0
    points = torch.cumsum(stretches, 0)
    fall = {"linear": lambda x: 1 - x, "cosine": lambda x: (1 + torch.cos(torch.pi * x)) / 2,
            "sqrt": lambda x: 1 - x.sqrt()}[shape]  # fmt: skip
    replayed = (stretches * fall(torch.arange(5, dtype=torch.float64) / 5)).sum()
    assert (points * torch.tensor(weights, dtype=torch.float64)).sum() == pytest.approx(float(replayed))
    assert decay_weights(4, "linear") == pytest.approx([0.25] * 4)


def test_what_cannot_be_merged_is_refused(checkpoints):
    for found, weights, said in [
        (checkpoints[:1], [1.0], "two checkpoints"),
        (checkpoints[:2], [1.0], "one for each"),
        (checkpoints[:2], [1.0, -1.0], "above 0"),
        (checkpoints[2:], [1.0, 1.0], "another model"),
    ]:
        with pytest.raises(UserError, match=said):
            merged(found, weights)  # before a file is opened for what it would give


@pytest.mark.parametrize("last", ["0", "-1", "1"])
def test_fewer_than_two_of_a_run_are_refused(checkpoints, tmp_path, monkeypatch, last):
    """0 and below would take other checkpoints than anybody means."""
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    run = str(checkpoints[0].folder.parent.parent)
    words = ["merge.py", "--run", run, "--last", last, "--to", str(tmp_path / "merged")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(UserError, match=f"--last is {last}; a merge takes two"):
        runpy.run_path(str(ROOT / "launch/merge.py"), run_name="page")["main"]()
    assert not (tmp_path / "merged").exists()
