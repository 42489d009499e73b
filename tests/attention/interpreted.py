"""The fused kernels in Triton's interpreter, in small tiles. Run by test_fused.py in a process of its own."""

import json

import torch

from megarc.attention import column, fused
from megarc.attention.fused import Plan, Tiles
from megarc.attention.mask import Mask
from megarc.attention.reference import attend


def small(rows, keys):
    return Tiles(rows, keys, 4, 1)


PLANS = [
    Plan(small(16, 32), small(32, 16), small(16, 32)),
    Plan(small(32, 16), small(16, 16), small(32, 16)),
]


def run(rows, recent, documents, plan, heads=2, kv_heads=1, head_dim=16):
    torch.manual_seed(rows)
    counts = (heads, kv_heads, kv_heads, heads)
    q, k, v, grad = (torch.randn(2, count, rows, head_dim) for count in counts)
    given = isinstance(recent, list)
    mask = Mask(0 if given else recent, torch.tensor(recent) if given else None, documents)
    out, lse = fused.forward(q, k, v, mask, 0.3, plan.forward)
    return (q, k, v, grad), mask, [out, *fused.backward(grad, q, k, v, out, lse, mask, 0.3, plan)]


def difference(rows, recent, documents, plan, **sizes):
    (*inputs, grad), mask, found = run(rows, recent, documents, plan, **sizes)
    leaves = [tensor.double().requires_grad_() for tensor in inputs]
    out = attend(*leaves, mask, 0.3)
    exact = [out, *torch.autograd.grad(out, leaves, grad.double())]
    return max(float((a - b.detach()).abs().max()) for a, b in zip(found, exact, strict=True))


def small_tiles():
    """Every way in which R may end in, at or beside a tile, and documents cut the walk."""
    packed = torch.stack([torch.arange(70) // 11, (torch.arange(70) > 20).long()])
    cases = [(rows, recent, None) for rows, recent in [(32, 16), (37, 0), (37, 37), (64, 33)]]
    cases += [(50, [0, 31], None), (70, 33, packed), (70, [33, 3], packed.flip(1))]
    return max(difference(*case, PLANS[place % 2]) for place, case in enumerate(cases))


def deterministic():
    """The same bits twice."""
    first, second = (run(53, 20, None, PLANS[0], heads=4, kv_heads=2)[2] for _ in range(2))
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def merged():
    """The merge kernel against the column split's own, with sets of keys that are empty."""
    torch.manual_seed(0)
    whole, other_out, lse = torch.randn(2, 3, 90, 24), torch.randn(2, 3, 70, 24), torch.randn(2, 3, 90)
    other_lse = torch.randn(2, 3, 70)
    lse[0, 0, 25:30] = -torch.inf
    other_lse[1, 1, :9] = -torch.inf
    again, lse_again = whole.clone(), lse.clone()
    column.merge_(whole[:, :, 20:], lse[:, :, 20:], other_out, other_lse)
    fused.merge_(again[:, :, 20:], lse_again[:, :, 20:], other_out, other_lse)
    return max(float((whole - again).abs().max()), float((lse - lse_again).abs().max()))


if __name__ == "__main__":
    print(json.dumps({"small_tiles": small_tiles(), "deterministic": deterministic(), "merged": merged()}))
