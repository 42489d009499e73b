"""AdamW of other libraries: refused where absent, else the numbers of torch's."""

import pytest
import torch

from megarc.config import build
from megarc.errors import UserError
from megarc.model import ModelConfig, Transformer
from megarc.train import RunConfig
from megarc.train.engine.optimizer import adamw, counter, set_counters

CPU = torch.device("cpu")


def optimizer(library):
    config = build(RunConfig, {"optimizer": {"library": library}}, "test")
    return adamw(Transformer(ModelConfig(layers=1, hidden=8, heads=2, vocabulary=16)), config, CPU)


def test_apex_is_never_guessed():
    """The registry's apex is another thing; a real one has no CPU code."""
    with pytest.raises(UserError, match="use optimizer"):
        optimizer("apex")


def test_gains_do_not_decay():
    decaying, others = optimizer("torch").param_groups
    assert decaying["weight_decay"] == 0.1 and others["weight_decay"] == 0.0
    assert {p.dim() for p in decaying["params"]} == {2} and {p.dim() for p in others["params"]} == {1}


def test_counters_are_set_where_a_library_keeps_them():
    """torch keeps a tensor a parameter, DeepSpeed's a number."""
    adam = optimizer("torch")
    tensor, number = (group["params"][0] for group in adam.param_groups)
    adam.state[tensor] = {"step": counter(adam, CPU)}
    adam.state[number] = {"step": 0}
    set_counters(adam, 7)
    assert adam.state[tensor]["step"].item() == 7.0 and adam.state[number]["step"] == 7
