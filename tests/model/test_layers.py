"""The gradient of an embedding in bf16, against double precision."""

import pytest
import torch

from megarc.model.layers import Embedding, Positions
from megarc.parallel import Group, TensorParallel


@pytest.mark.parametrize("rank", [None, 0, 1])
def test_gradient_of_a_frequent_token(rank):
    tensor = TensorParallel() if rank is None else TensorParallel(Group(rank, 2))
    tensor.leave = lambda hidden: hidden  # the sum over ranks, which are not there
    first = 8 * (rank or 0)
    layer = Embedding(16, 8, tensor).bfloat16()
    tokens = torch.randint(first, first + 2, (4, 1024), generator=torch.Generator().manual_seed(0))
    upstream = 1 + torch.randn(4, 1024, 8, generator=torch.Generator().manual_seed(1))
    _check(layer.weight, layer(tokens), tokens - first, upstream.bfloat16())


def test_gradient_of_a_frequent_position():
    layer = Positions(4, 8, TensorParallel()).bfloat16()
    positions = torch.arange(4).repeat(3, 512)
    upstream = 1 + torch.randn(3, 2048, 8, generator=torch.Generator().manual_seed(1))
    _check(layer.weight, layer(0, 2048, positions), positions, upstream.bfloat16())


def _check(weight, found, rows, upstream):
    assert torch.equal(found, weight[rows])
    found.backward(upstream)
    expected = torch.zeros(weight.shape, dtype=torch.float64)
    expected.index_add_(0, rows.flatten(), upstream.double().flatten(0, 1))
    assert (weight.grad - expected).norm() < 0.004 * expected.norm()
