"""Stages of every model that is shipped, at every number of stages that fits it."""

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from megarc.config import load
from megarc.errors import UserError
from megarc.interval import Intervals
from megarc.model import (
    Beside,
    ExecutionConfig,
    Head,
    ModelConfig,
    Transformer,
    head_loss,
    initialise,
    layers,
    record_of,
    stage_bounds,
)
from megarc.model.pipeline import check_stage_experts
from megarc.model.transformer import pick_rows
from megarc.parallel import TensorParallel
from megarc.train import RunConfig

MODELS = sorted((Path(__file__).parents[2] / "configs/models").glob("*.yaml"))


def sizes(config):
    """Numbers of stages that divide the blocks, and those that do not, up to a stage for each block."""
    return [stages for stages in range(2, config.layers + 1) if stages <= 8 or config.layers % stages == 0]


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_every_stage_has_both_groups_of_the_optimizer(file):
    """A stage without norms or without matrices hangs at the first step: DeepSpeed reduces once a group."""
    config = load(RunConfig, file, ["model.vocabulary=50257"]).model
    listed = layers(config, ExecutionConfig(), TensorParallel())
    with FakeTensorMode():
        built = [layer.build() for layer in listed]
        decays = [{record_of(weight).decays for weight in module.parameters()} for module in built]
    for stages in sizes(config):
        bounds = stage_bounds(listed, stages)
        assert len(bounds) == stages + 1
        for first, last in pairwise(bounds):
            assert set().union(*decays[first:last]) == {False, True}, (stages, bounds)


@pytest.mark.parametrize("tied", [True, False])
def test_the_largest_stage_is_as_small_as_can_be(tied):
    """Against every cut before a block, for a small model whose head is larger than a block."""
    config = load(
        RunConfig, MODELS[0], ["model.vocabulary=3000", "model.layers=7", f"model.tied={tied}"]
    ).model
    listed = layers(config, ExecutionConfig(), TensorParallel())
    blocks = [number for number, layer in enumerate(listed) if layer.name.startswith("blocks.")]

    def largest(bounds):
        return max(sum(layer.parameters for layer in listed[first:last]) for first, last in pairwise(bounds))

    for stages in range(1, 8):
        cuts = combinations(blocks[1:], stages - 1)
        assert largest(stage_bounds(listed, stages)) == min(largest([0, *cut, len(listed)]) for cut in cuts)


@pytest.mark.parametrize("tied", [True, False])
def test_a_stage_runs_on_hidden_rows_alone(tied):
    """Loss rows, what rows see, and positions stand beside them: the same loss as the whole model's."""
    config = load(RunConfig, MODELS[0], ["model.vocabulary=64", "model.layers=2", f"model.tied={tied}"]).model
    count = 12
    model = Transformer(config)
    with torch.no_grad():
        initialise(model, config, seed=3)
    tokens = torch.randint(64, (2, count + 1), generator=torch.Generator().manual_seed(0))
    documents = np.where(np.arange(count) > 6, 1, 0)[None].repeat(2, 0)
    given = {
        "rows": torch.tensor([3, 4, 9, 14, 22, 23]),
        "seen": Intervals.of(count, np.array([2, 4]), documents).map(torch.as_tensor),
        "positions": torch.arange(count) * torch.tensor([[1], [3]]),
    }
    head = Head.of(config, ExecutionConfig(), TensorParallel())

    def run(**given):
        def loss(hidden, weight):
            targets = pick_rows(tokens[:, 1:], given["rows"])
            return head_loss(head, hidden, weight, targets).objective

        x, beside = tokens[:, :-1], Beside(loss, **given)
        for layer in layers(config, ExecutionConfig(), TensorParallel()):
            x = layer.run(model.get_submodule(layer.name), x, beside)
        return x

    assert torch.equal(run(**given), model(tokens, **given).objective)
    plain = {"rows": slice(4, 12), "seen": 4, "positions": None}
    for name in given:  # each of them matters
        assert not torch.allclose(run(**given), run(**{**given, name: plain[name]}))


def test_a_stage_without_experts_that_ranks_share_is_refused():
    """It would lack a group of the optimizer: its ranks would not take part in that group's all-reduce."""
    config = ModelConfig(layers=4, hidden=32, heads=2, vocabulary=50, experts={"count": 4, "dense_first": 2})
    listed = layers(config, ExecutionConfig(), TensorParallel())
    with pytest.raises(UserError, match=r"stage 0 has layers 1 to .*none with experts.*use fewer stages"):
        check_stage_experts(config, listed, 4, 2)
    check_stage_experts(config, listed, 4, 1)
    check_stage_experts(config, listed, 1, 2)
