"""Muon: torch's is the oracle; who orthogonalises what, and what travels for it, is counted."""

import math
from itertools import pairwise

import pytest
import torch
from support.runs import config as tiny_run

from megarc.config import build
from megarc.errors import UserError
from megarc.model import ModelConfig, Transformer, initialise, record_of
from megarc.parallel import Group, Groups, Topology, connect, cut, disconnect, meet, whole
from megarc.rank_environment import ALONE as LONE_RANK
from megarc.science import MAKERS
from megarc.train import RunConfig, pretrain
from megarc.train.engine.factors import factors_of
from megarc.train.engine.muon import Matrix, Place, Sharing, matrices_of
from megarc.train.engine.optimizer import optimizer_of
from megarc.train.engine.places import Piece

SHAPE = ModelConfig(layers=1, hidden=16, heads=4, kv_heads=2, ffn=24, vocabulary=16)
ALONE = Groups(*[Group(0, 1)] * 5, Topology(1, 1, 1), torch.device("cpu"))


def run_config(**muon):
    keys = {"name": "muon", "lr": 0.02, "weight_decay": 0.1, "muon": muon}
    return build(RunConfig, {"optimizer": keys, "parallel": {"zero": 0}}, "test")


def ours(config):
    model = Transformer(SHAPE)
    initialise(model, SHAPE, seed=1)
    optimizer = optimizer_of(model, config, ALONE)
    pieces = [
        Piece(name, record_of(p), list(record_of(p).boxes), p, 0, p.numel())
        for name, p in model.named_parameters()
    ]
    optimizer.arrange(pieces, lambda piece: factors_of(piece.name, piece.record, config))
    return model, optimizer


def parts_of(name, values):
    """A parameter's matrices, as the views of them."""
    return list(values.chunk(2)) if name.endswith(("key_value.weight", "gate_up.weight")) else [values]


@pytest.mark.parametrize("scale", ["match_adamw", "original"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_equals_torch_on_each_matrix_of_its_own(scale, nesterov):
    """q, k, v, gate and up are matrices of their own; torch iterates in bf16, so do we here."""
    config = run_config(scale=scale, nesterov=nesterov, precision="bf16")
    model, optimizer = ours(config)
    hidden = {n: p for n, p in model.named_parameters() if record_of(p).kind in ("hidden", "residual")}
    assert len(hidden) == 5
    theirs = {n: [torch.nn.Parameter(m.clone()) for m in parts_of(n, p.detach())] for n, p in hidden.items()}
    adjust = {"match_adamw": "match_rms_adamw", "original": "original"}[scale]
    oracle = torch.optim.Muon(
        [m for matrices in theirs.values() for m in matrices],
        lr=0.02, weight_decay=0.1, nesterov=nesterov, adjust_lr_fn=adjust,
    )  # fmt: skip
    for step in range(3):
        for number, (name, parameter) in enumerate(model.named_parameters()):
            generator = torch.Generator().manual_seed(100 * step + number)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            for matrix, gradient in zip(theirs.get(name, []), parts_of(name, parameter.grad), strict=False):
                matrix.grad = gradient.clone()
        optimizer.step()
        oracle.step()
    for name, parameter in hidden.items():
        torch.testing.assert_close(
            parameter.detach(), torch.cat([m.detach() for m in theirs[name]]), rtol=1e-5, atol=1e-6
        )


def test_equal_rows_have_one_norm_and_keep_the_updates_size():
    """Each of the matrices that are stored together by itself; a neuron without a gradient stays."""
    updates = {}
    for equal in (False, True):
        model, optimizer = ours(run_config(equal_rows=equal))
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        model.blocks[0].feed_forward.gate_up.weight.grad[5] = 0
        optimizer.step()
        updates[equal] = {
            name: p.detach() - before[name] * (1 - 0.02 * 0.1)
            for name, p in model.named_parameters()
            if record_of(p).kind in ("hidden", "residual")
        }
    for name, found in updates[True].items():
        for plain, equal in zip(parts_of(name, updates[False][name]), parts_of(name, found), strict=True):
            live = plain.norm(dim=1) > 1e-6
            norms = equal.norm(dim=1)
            assert (norms[~live] < 1e-6).all()
            torch.testing.assert_close(norms[live], norms[live].mean().expand(int(live.sum())))
            torch.testing.assert_close(equal.norm(), plain.norm(), rtol=1e-4, atol=1e-6)
            directions = torch.nn.functional.cosine_similarity(plain[live], equal[live], dim=1)
            torch.testing.assert_close(directions, torch.ones_like(directions), rtol=1e-4, atol=1e-4)
    gate = updates[True]["blocks.0.feed_forward.gate_up.weight"]
    assert (gate.norm(dim=1) < 1e-6).sum() == 1 and gate[5].norm() < 1e-6


def test_an_update_is_as_large_as_adamws_and_a_bad_one_leaves_no_trace():
    model, optimizer = ours(run_config())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    good = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizer.found_inf, optimizer.grad_scale = torch.tensor(1.0), torch.tensor(1.0)
    next(model.parameters()).grad.fill_(float("nan"))
    model.blocks[0].attention.out.weight.grad.fill_(float("nan"))
    optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any(m.any() for p in model.parameters() for m in [optimizer.state[p]["exp_avg"]])
    for name, parameter in model.named_parameters():
        parameter.grad = good[name]
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    for name, p in model.named_parameters():
        if record_of(p).kind in ("hidden", "residual"):
            update = (p.detach() - before[name] * (1 - 0.02 * 0.1)) / 0.02
            assert 0.1 < update.square().mean().sqrt() < 0.3, name
            assert "exp_avg_sq" not in optimizer.state[p]


def test_adamw_does_not_go_on_from_moments_that_muon_does_not_have(tmp_path):
    groups = connect(meet(LONE_RANK), "cpu")
    first = tiny_run(tmp_path / "muon", 1, 2, optimizer__name="muon")
    pretrain(build(RunConfig, first, "test"), groups, MAKERS)
    after = tiny_run(tmp_path / "adamw", 1, 4, start_from=str(tmp_path / "muon"))
    with pytest.raises(UserError, match=r"start_with\.moments=false"):
        pretrain(build(RunConfig, after, "test"), groups, MAKERS)
    fresh = {**after, "folder": str(tmp_path / "fresh"), "start_with": {"moments": False}}
    pretrain(build(RunConfig, fresh, "test"), groups, MAKERS)
    disconnect()


# ---- who does what

MATRICES = [
    (f"blocks.{layer}.{name}", shape)
    for layer in range(6)
    for name, shape in [
        ("q", (32, 32)),
        ("k", (16, 32)),
        ("o", (32, 32)),
        ("up", (96, 32)),
        ("down", (32, 96)),
    ]
]
ELEMENTS = sum(math.prod(shape) for _, shape in MATRICES)


def sharing(data, cuts, sharded=True):
    """``cuts``: of each rank, the range that it holds of each matrix, by its number."""
    listed = [Matrix(name, whole(shape)[0], split=False) for name, shape in MATRICES]
    holdings = [
        {
            name: cut(whole(shape), *cuts(rank, number, math.prod(shape)))
            for number, (name, shape) in enumerate(MATRICES)
        }
        for rank in range(data)
    ]
    return Sharing(listed, holdings, [Place(0, rank) for rank in range(data)], sharded)


def zero_1(data):
    """One buffer, cut into equal ranges, whatever parameters they cross."""
    starts = [0]
    for _, shape in MATRICES:
        starts.append(starts[-1] + math.prod(shape))
    per = -(-ELEMENTS // data)

    def cuts(rank, number, size):
        first, last = rank * per - starts[number], (rank + 1) * per - starts[number]
        return max(0, min(first, size)), max(0, min(last, size))

    return sharing(data, cuts)


def zero_3(data):
    """Of each parameter an equal part on each rank."""
    return sharing(data, lambda rank, number, size: (size * rank // data, size * (rank + 1) // data))


def zero_0(data):
    return sharing(data, lambda rank, number, size: (0, size), sharded=False)


@pytest.mark.parametrize("data", [1, 2, 3, 8])
@pytest.mark.parametrize("layout", [zero_0, zero_1, zero_3])
def test_every_matrix_has_one_owner_and_the_work_is_shared(layout, data):
    found = layout(data)
    owned = [found.owned(rank) for rank in range(data)]
    assert sorted(number for listed in owned for number in listed) == list(range(len(MATRICES)))
    work = [sum(found.matrices[number].work for number in listed) for listed in owned]
    assert max(work) <= 1.1 * sum(work) / data + max(matrix.work for matrix in found.matrices)
    for number, matrix in enumerate(found.matrices):
        owner = found.owners[number]
        coming = [r for rank in range(data) for r in found.gives(rank, owner) if r.matrix == number]
        assert sum(route.elements for route in coming) == matrix.part.size, "each element comes once"


@pytest.mark.parametrize("data", [2, 4, 8])
def test_what_travels_follows_closed_forms(data):
    """ZeRO 0: each update to all others. 3: all but the owner's part, there and back. 1, 2: only what is cut."""
    total = {
        layout: sum(layout(data).sent(rank) for rank in range(data)) for layout in (zero_0, zero_1, zero_3)
    }
    assert total[zero_0] == ELEMENTS * (data - 1)
    assert total[zero_3] == 2 * ELEMENTS * (data - 1) // data
    assert total[zero_1] <= 2 * 2 * data * max(math.prod(shape) for _, shape in MATRICES)
    assert total[zero_1] < total[zero_3] / 2


def test_the_matrices_of_a_fused_parameter():
    with torch.device("meta"):
        block = Transformer(SHAPE).blocks[0]
    tops = [m.part.top for m in matrices_of("gate_up", record_of(block.feed_forward.gate_up.weight))]
    assert tops == [0, 24]
    both = matrices_of("kv", record_of(block.attention.key_value.weight))
    assert [(m.rows, m.columns) for m in both] == [(8, 16), (8, 16)]
    assert all(one.part.bottom == two.part.top for one, two in pairwise(both))


def test_what_cannot_be_is_refused():
    for keys, said in [
        ({"name": "muon", "library": "deepspeed"}, "library=torch"),
        ({"name": "adamw", "muon": {"momentum": 0.9}}, "optimizer.name=muon"),
    ]:
        with pytest.raises(UserError, match=said):
            build(RunConfig, {"optimizer": keys}, "test")
