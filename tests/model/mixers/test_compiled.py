"""Compiled blocks of recurrent layers give the numbers of eager ones, recomputed in part; R by sample and by document.

The backend is torch's own that traces as the usual one does and starts no C++ compiler;
benchmarks/mixers_compiled.py compares what that one gives. tests/train/engine/test_compiled.py has plain windows.
"""

import logging

import torch
from support.compilers import TRACED, compiling_with
from support.mixers import intervals_of

from megarc.model import ExecutionConfig, ModelConfig, Transformer, initialise

KEYS = {"hidden": 32, "heads": 4, "kv_heads": 2, "vocabulary": 100, "tied": False, "initial_std": 0.2}
SEEN = intervals_of([[(13, 6), (5, 0)], [(1, 1), (17, 9)]])


def gradients(tokens, mixers, **execution):
    """The loss, and the gradient of every parameter."""
    config = ModelConfig(layers=len(mixers.split()), mixers=mixers, crf_transitions=2, **KEYS)
    model = Transformer(config, ExecutionConfig(**execution)).double()
    initialise(model, config, 3)
    loss = model(tokens, slice(13, 18), SEEN).objective
    loss.backward()
    return {"loss": loss.detach()} | {name: one.grad for name, one in model.named_parameters()}


def test_compiled_equals_eager(caplog):
    tokens = torch.randint(0, 100, (2, 19), generator=torch.Generator().manual_seed(1))
    wanted = gradients(tokens, "ssm crf")
    with compiling_with(TRACED), caplog.at_level(logging.WARNING, "megarc"):
        found = gradients(tokens, "ssm crf", compile=True, recompute="selective")
    assert "runs eagerly" not in caplog.text
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, msg=lambda text, name=name: f"{name}: {text}")
