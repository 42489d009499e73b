"""The fused kernels in Triton's interpreter, in small tiles. Run by test_fused.py in a process of its own."""

import json

import torch

from megarc.attention import column_split, triton_fused
from megarc.attention.attention_call import Inputs, Outputs
from megarc.attention.mask import Mask
from megarc.attention.parity import Case
from megarc.attention.reference import attend
from megarc.attention.triton_fused import Plan, Tiles


def small(rows, keys):
    return Tiles(rows, keys, 4, 1)


PLANS = [
    Plan(small(16, 32), small(32, 16), small(16, 32)),
    Plan(small(32, 16), small(16, 16), small(32, 16)),
]


def run(case, plan):
    tensors, seen = case.inputs(torch.float32, "cpu")
    *inputs, grad = tensors
    call, mask = Inputs(*inputs, 0.3), Mask.of(seen)
    out, lse = triton_fused.forward(call, mask, plan.forward)
    return tensors, mask, [out, *triton_fused.backward(call, mask, Outputs(grad, out, lse), plan)]


def difference(case, plan):
    (*inputs, grad), mask, found = run(case, plan)
    leaves = [tensor.double().requires_grad_() for tensor in inputs]
    out = attend(Inputs(*leaves, 0.3), mask)
    exact = [out, *torch.autograd.grad(out, leaves, grad.double())]
    return max(float((a - b.detach()).abs().max()) for a, b in zip(found, exact, strict=True))


def small_tiles():
    """Every way in which R may end in, at or beside a tile, and documents and their R cut the walk."""
    sizes = {"kv_heads": 1, "head_dim": 16}
    cases = [
        Case(rows, recent, **sizes) for rows, recent in [(32, 16), (37, 0), (37, 37), (64, 33), (50, (0, 31))]
    ]
    documents = [
        ((11, 4), (11, 0), (11, 11), (37, 20)),
        ((1, 0), (1, 1), (62, 40), (6, 2)),
        ((32, 16), (16, 0), (22, 22)),
    ]
    cases += [Case(70, 0, documents=some, **sizes) for some in documents]
    cases += [Case(61, (30, 5), sliding=9, **sizes), Case(70, 0, documents=documents[0], sliding=18, **sizes)]
    return max(difference(case, PLANS[place % 2]) for place, case in enumerate(cases))


def some_rows():
    """Two halves of a window's rows, not in one piece, as ranks of parallel.context have them."""
    found = []
    for place, case in enumerate(
        (
            Case(70, (20, 5), head_dim=16),
            Case(96, 0, documents=((11, 4), (48, 30), (37, 20)), sliding=18, head_dim=16),
        )
    ):
        (*inputs, grad), seen = case.inputs(torch.float32, "cpu")
        q, k, v = inputs
        numbers = torch.arange(case.rows)
        early = (numbers < case.rows // 4) | (numbers >= 3 * case.rows // 4)
        for own in (numbers[early], numbers[~early]):
            mask = Mask.of(seen.map(lambda array, own=own: array[:, own].contiguous()))
            call, upstream, plan = Inputs(q[:, :, own], k, v, 0.3), grad[:, :, own], PLANS[place]
            out, lse = triton_fused.forward(call, mask, plan.forward)
            here = [out, *triton_fused.backward(call, mask, Outputs(upstream, out, lse), plan)]
            leaves = [tensor.double().requires_grad_() for tensor in (call.q, k, v)]
            exact = attend(Inputs(*leaves, 0.3), mask)
            there = [exact, *torch.autograd.grad(exact, leaves, upstream.double())]
            found += [float((a - b.detach()).abs().max()) for a, b in zip(here, there, strict=True)]
    return max(found)


def deterministic():
    """The same bits twice."""
    first, second = (run(Case(53, 20, heads=4, kv_heads=2, head_dim=16), PLANS[0])[2] for _ in range(2))
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def merged():
    """The merge kernel against the column split's own, with sets of keys that are empty."""
    torch.manual_seed(0)
    whole, other_out, lse = torch.randn(2, 3, 90, 24), torch.randn(2, 3, 70, 24), torch.randn(2, 3, 90)
    other_lse = torch.randn(2, 3, 70)
    lse[0, 0, 25:30] = -torch.inf
    other_lse[1, 1, :9] = -torch.inf
    again, lse_again = whole.clone(), lse.clone()
    column_split.merge_(whole[:, :, 20:], lse[:, :, 20:], other_out, other_lse)
    triton_fused.merge_(again[:, :, 20:], lse_again[:, :, 20:], other_out, other_lse)
    return max(float((whole - again).abs().max()), float((lse - lse_again).abs().max()))


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "small_tiles": small_tiles(),
                "some_rows": some_rows(),
                "deterministic": deterministic(),
                "merged": merged(),
            }
        )
    )
