"""The norm of gradients, against double precision."""

import pytest
import torch

from megarc.train.engine import norm_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_of_many_numbers(dtype):
    gradient = torch.randn(1 << 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    few = torch.full((2, 2), 1e3, dtype=dtype).t()
    listed = [gradient.view(1 << 12, -1), torch.ones(3, dtype=dtype), few, torch.zeros(0, dtype=dtype)]
    expected = sum(float(one.double().square().sum()) for one in listed) ** 0.5
    found = norm_of(listed)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(expected, rel=1e-5)
