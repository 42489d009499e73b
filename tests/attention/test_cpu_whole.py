"""Small batches on a CPU in one call: which ones, exact in every type, with and without gradients."""

import pytest
import torch

from megarc.attention import attend, cpu_whole, split_cpu
from megarc.attention.attention_call import Inputs
from megarc.attention.mask import Mask
from megarc.attention.parity import TOLERANCE, Case, worst

SMALL = (
    Case(64, 32),
    Case(100, 1, heads=4, kv_heads=2, head_dim=24),
    Case(128, 128),
    Case(50, (7, 50), heads=4, kv_heads=1),
    Case(200, (7, 90)),
    Case(120, (100, 3), sliding=33),
    Case(40, 0, documents=((30, 11), (10, 2))),
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_exact_and_in_one_call(case, dtype, monkeypatch):
    calls = []
    flash = split_cpu._flash
    monkeypatch.setattr(
        split_cpu, "_flash", lambda *args, **keys: (calls.append(args[0].shape), flash(*args, **keys))[1]
    )
    assert worst("split_cpu", case, dtype) <= TOLERANCE[dtype]
    assert [tuple(shape) for shape in calls] == [(case.batch, case.heads, case.rows, case.head_dim)]


@pytest.mark.parametrize("gradient", ["expanded", "transposed"])
def test_gradients_and_inputs_of_any_strides(gradient):
    torch.manual_seed(0)
    made = [torch.randn(2, 4, 16, 30, dtype=torch.float64).transpose(2, 3).requires_grad_() for _ in range(3)]
    upstream = torch.randn(2, 4, 16, 30, dtype=torch.float64).transpose(2, 3)
    if gradient == "expanded":
        upstream = torch.ones((), dtype=torch.float64).expand(2, 4, 30, 16)
    grads = {}
    for engine in ("split_cpu", "reference"):
        grads[engine] = torch.autograd.grad(attend(*made, 11, engine=engine), made, upstream)
    for one, other in zip(*grads.values(), strict=True):
        assert (one - other).abs().max() < 1e-12


def test_what_is_taken_whole():
    """Few products: one call. Many, long windows, and documents that leave most pairs out: pieces."""

    def call(batch, rows):
        q = torch.empty(batch, 8, rows, 64, device="meta")
        return Inputs(q, q, q, 1.0)

    assert not cpu_whole.tiles_pay(call(1, 128), 64)
    assert not cpu_whole.tiles_pay(call(64, 256), 256)  # nothing to spare
    assert cpu_whole.tiles_pay(call(8, 256), 128)
    assert cpu_whole.tiles_pay(call(1, 257), 257)
    for documents, whole in ((((32, 16),) * 8, False), (((256, 250),), True)):
        seen = Mask.of(Case(256, 0, documents=documents, batch=4).seen())
        cut = split_cpu._cut(call(4, 256), seen)
        assert (len(cut) == 1 and not cut[0].alike) is whole
