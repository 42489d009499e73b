"""Grouped products of experts on one GPU against dense products of the same active FLOPs, offline on a bare machine.

    python benchmarks/gpu/experts.py                     all shapes, about 2 minutes
    python benchmarks/gpu/experts.py --device cpu --toy  tiny shapes on the CPU, to see that it runs

First each shape's parity: the grouped product and its gradients against a loop of products in float64. Then the
throughput of forward and backward pass over that of the dense product, rows shared out evenly and unevenly (the busiest
expert has four times the mean); the aim is 0.8 with even rows. Written to benchmarks/results/gpu-experts.json with
the device's name.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from options import gpu_options, need_gpu  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from megarc.model.feed_forward.experts.grouped_matmul import grouped_matmul  # noqa: E402

SHAPES = [(8, 2, 4096, 14336), (64, 8, 2048, 1024), (64, 4, 4096, 3072), (128, 8, 2048, 768)]
"""Experts, active, hidden, width: Mixtral's, two presets', Qwen 3's."""
TOKENS, AIM = 16384, 0.8
TOLERANCE = {torch.bfloat16: 0.02, torch.float32: 1e-5}


def main() -> None:
    arguments = gpu_options(__doc__, "gpu-experts.json", toy="tiny shapes, two repeats").parse_args()
    need_gpu(arguments.device)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    shapes = [(4, 2, 32, 16), (8, 1, 16, 24)] if arguments.toy else SHAPES
    report = {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "aim": AIM,
        "rows": [timed(shape, dtype, arguments) for shape in shapes],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def timed(shape: tuple[int, int, int, int], dtype: torch.dtype, arguments: argparse.Namespace) -> dict:
    """One shape: its parity, and the throughput of both products."""
    experts, active, hidden, width = shape
    rows = (64 if arguments.toy else TOKENS) * active
    found: dict = {"experts": experts, "active": active, "hidden": hidden, "width": width, "rows": rows}
    made = {"device": arguments.device, "dtype": dtype}
    x = torch.randn(rows, hidden, **made, requires_grad=True)
    weight = (torch.randn(experts, 2 * width, hidden, **made) * hidden**-0.5).requires_grad_()
    dense = weight.detach()[0].clone().requires_grad_()
    flops = 3 * 2 * rows * hidden * 2 * width  # forward and both gradients
    found["dense_tflops"] = flops / seconds(lambda: functional.linear(x, dense), (x, dense), arguments) / 1e12
    for name, counts in (("even", even(experts, rows)), ("uneven", uneven(experts, rows))):
        counts = counts.to(arguments.device)
        found[f"{name}_parity"] = worst(x, weight, counts)
        found[f"{name}_right"] = found[f"{name}_parity"] <= TOLERANCE[dtype]
        spent = seconds(lambda counts=counts: grouped_matmul(x, weight, counts), (x, weight), arguments)
        found[f"{name}_tflops"] = flops / spent / 1e12
        found[f"{name}_ratio"] = found[f"{name}_tflops"] / found["dense_tflops"]
    found["aim_met"] = found["even_right"] and found["even_ratio"] >= AIM
    return found


def even(experts: int, rows: int) -> Tensor:
    """As many rows for each expert, nearly."""
    counts = torch.full((experts,), rows // experts)
    counts[: rows % experts] += 1
    return counts


def uneven(experts: int, rows: int) -> Tensor:
    """The first expert has four times the mean (all rows at most), the last none, the others as many each."""
    first = min(rows, 4 * rows // experts)
    return torch.cat([torch.tensor([first]), even(experts - 2, rows - first), torch.tensor([0])])


def worst(x: Tensor, weight: Tensor, counts: Tensor) -> float:
    """The largest relative difference of product and gradients to float64, of the first rows of each expert."""
    few = counts.clamp(max=32)
    starts = counts.cumsum(0) - counts
    picked = torch.cat(
        [
            torch.arange(int(start), int(start + count), device=x.device)
            for start, count in zip(starts, few, strict=True)
        ]
    )
    some = x.detach()[picked].requires_grad_()
    own = weight.detach().clone().requires_grad_()
    ours = grouped_matmul(some, own, few)
    upstream = torch.randn_like(ours)
    wide, other = some.detach().double().requires_grad_(), own.detach().double().requires_grad_()
    parts = zip(wide.split(few.tolist()), other, strict=True)
    theirs = torch.cat([part @ one.t() for part, one in parts])
    pairs = [
        (ours, theirs),
        *zip(
            torch.autograd.grad(ours, (some, own), upstream),
            torch.autograd.grad(theirs, (wide, other), upstream.double()),
            strict=True,
        ),
    ]
    return max(float((one - two).detach().norm() / two.detach().norm()) for one, two in pairs)


def seconds(call: Callable[[], Tensor], inputs: tuple[Tensor, ...], arguments: argparse.Namespace) -> float:
    """The median of several forward and backward passes."""
    repeats, upstream = 2 if arguments.toy else 20, torch.randn_like(call())
    times = []
    for _ in range(repeats + 2):
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        torch.autograd.grad(call(), inputs, upstream)
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
