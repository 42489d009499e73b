"""Our AdamW gives torch's numbers, each kind of parameter with its own rate and decay, wherever the parts lie."""

import pytest
import torch

from megarc.config import build
from megarc.errors import UserError
from megarc.model import ModelConfig, Transformer, initialise, record_of
from megarc.parallel import cut
from megarc.train import RunConfig
from megarc.train.engine.factors import factors_of
from megarc.train.engine.places import Piece
from megarc.train.engine.sharded_optimizer import ShardedOptimizer

SHAPE = ModelConfig(layers=1, hidden=8, heads=2, vocabulary=16, tied=False)
RATES = {"embedding": 2.0, "hidden": 1.0, "readout": 0.25, "norm": 0.5}
DECAYS = {"embedding": 0.0, "hidden": 1.0, "readout": 0.5, "norm": 0.3}


def config():
    keys = {"rates": RATES, "decays": DECAYS, "weight_decay": 0.2, "lr": 0.01}
    return build(RunConfig, {"optimizer": keys}, "test")


def model():
    made = Transformer(SHAPE)
    initialise(made, SHAPE, seed=1)
    return made


def in_buffers(made, optimizer, keys):
    """Each group in one buffer with a gap at its end, as ZeRO lays it out."""
    found = []
    for group in optimizer.param_groups:
        parameters = group["params"]
        flat = torch.cat([p.detach().reshape(-1) for p in parameters] + [torch.zeros(3)])
        group["params"], offset = [flat], 0
        for parameter in parameters:
            record = record_of(parameter)
            found.append(
                Piece("", record, cut(record.boxes, 0, parameter.numel()), flat, offset, parameter.numel())
            )
            offset += parameter.numel()
    optimizer.arrange(found, lambda piece: factors_of(piece.name, piece.record, keys))
    return found


def reference(made, keys):
    """torch's AdamW with a group a parameter."""
    groups = []
    for parameter in made.parameters():
        kind = record_of(parameter).kind.replace("residual", "hidden")
        groups.append({"params": [parameter], "lr": 0.01 * RATES[kind], "weight_decay": 0.2 * DECAYS[kind]})
    one = keys.optimizer
    return torch.optim.AdamW(groups, betas=(one.beta1, one.beta2), eps=one.epsilon)


def test_equals_torch_with_rates_and_decays_by_kind_and_leaves_a_bad_update_out():
    keys, made, other = config(), model(), model()
    ours, theirs = ShardedOptimizer(made, keys.optimizer), reference(other, keys)
    parts = in_buffers(made, ours, keys)
    order = [p for kinds in (("hidden", "residual"), ("embedding", "readout", "norm"))
             for p in other.parameters() if record_of(p).kind in kinds]  # fmt: skip
    for step in range(4):
        bad = step == 2
        for piece, parameter in zip(parts, order, strict=True):
            gradient = torch.randn(parameter.numel(), generator=torch.Generator().manual_seed(step))
            if piece.flat.grad is None or piece.offset == 0:
                piece.flat.grad = torch.zeros_like(piece.flat)
            piece.of(piece.flat.grad).copy_(gradient * (float("nan") if bad else 1.0))
            parameter.grad = gradient.view(parameter.shape) / 4
        ours.found_inf, ours.grad_scale = torch.tensor(float(bad)), torch.tensor(4.0)
        ours.step()
        if not bad:
            theirs.step()
    for piece, parameter in zip(parts, order, strict=True):
        torch.testing.assert_close(piece.of(piece.flat), parameter.detach().view(-1), rtol=1e-6, atol=1e-7)
    assert all(piece.flat[-3:].eq(0).all() for piece in parts), "what lies behind the parameters stays"


def test_another_library_is_refused_rates_of_its_own():
    with pytest.raises(UserError, match=r"optimizer.library=torch"):
        build(RunConfig, {"optimizer": {"library": "apex", "rates": {"norm": 0.5}}}, "test")
