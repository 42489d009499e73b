"""One suite for every engine: values and gradients against the float64 reference.

    python -m megarc.attention.parity --engine triton --device cuda --dtype bfloat16
    TRITON_INTERPRET=1 python -m megarc.attention.parity --engine triton --dtype float32

The tests run it for the engines that a CPU can run, benchmarks/gpu/attention.py for all.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from megarc.attention.door import ENGINES, attend
from megarc.errors import UserError, run_script

TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest difference allowed, relative to 1 + the largest value. The half precisions keep 11 and 8 bits."""


@dataclass(frozen=True, slots=True)
class Case:
    """Sizes of one comparison; ``recent`` for all samples or one each; documents packed in order or mixed."""

    rows: int
    recent: int | tuple[int, ...]
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 64
    documents: str | None = None
    batch: int = 2

    def inputs(self, dtype: torch.dtype, device: str) -> tuple[list[Tensor], Tensor | int, Tensor | None]:
        """``[q, k, v, grad]``, recent and documents; q and the gradient as views of ``[B, n, H, d]``."""
        generator = torch.Generator().manual_seed(self.rows)
        counts = (self.heads, self.kv_heads, self.kv_heads, self.heads)
        tensors = [
            torch.randn(self.batch, self.rows, count, self.head_dim, generator=generator)
            .to(device, dtype)
            .transpose(1, 2)
            for count in counts
        ]
        recent = self.recent if isinstance(self.recent, int) else torch.tensor(self.recent, device=device)
        documents = None
        if self.documents == "packed":
            documents = (torch.arange(self.rows) // max(1, self.rows // 3)).expand(self.batch, -1).to(device)
        elif self.documents == "mixed":
            documents = torch.randint(0, 3, (self.batch, self.rows), generator=generator).to(device)
        return tensors, recent, documents

    def __str__(self) -> str:
        heads = f"{self.heads}:{self.kv_heads} heads of {self.head_dim}"
        return f"n {self.rows}, r {self.recent}, {heads}, documents {self.documents}"


CASES = (
    Case(1, 0),
    Case(1, 1),
    Case(2, 1, heads=4),
    Case(65, 0, heads=4, kv_heads=1),
    Case(129, 128),
    Case(129, 129, head_dim=24),
    Case(150, 1, head_dim=128),
    Case(192, 64, heads=6, kv_heads=2),
    Case(257, 131, heads=4, kv_heads=2),
    Case(201, (0, 77), head_dim=40),
    Case(200, 0, documents="packed"),
    Case(200, 101, documents="packed", heads=4, kv_heads=2),
    Case(140, (3, 140), documents="mixed"),
)
LARGE = (
    Case(1024, 512, heads=16, kv_heads=2, head_dim=128),
    Case(2047, 1000, heads=8, kv_heads=8, head_dim=128),
    Case(1500, (700, 1499), heads=4, kv_heads=1, head_dim=64, documents="packed"),
)
"""Added on a GPU."""


def worst(engine: str, case: Case, dtype: torch.dtype, device: str = "cpu", gradients: bool = True) -> float:
    """The largest difference of the output and the three gradients, relative to 1 + the largest value."""
    tensors, recent, documents = case.inputs(dtype, device)
    found = _run(engine, tensors, recent, documents, gradients)
    exact = _run("reference", [tensor.double() for tensor in tensors], recent, documents, gradients)
    pairs = zip(found, exact, strict=True)
    return max(float((a.double() - b).abs().max() / (1 + b.abs().max())) for a, b in pairs)


def _run(
    engine: str, tensors: list[Tensor], recent: Tensor | int, documents: Tensor | None, gradients: bool
) -> list[Tensor]:
    *inputs, grad = tensors
    q, k, v = inputs = [tensor.detach().requires_grad_(gradients) for tensor in inputs]
    out = attend(q, k, v, recent, documents, engine=engine)
    found = [out, *torch.autograd.grad(out, inputs, grad)] if gradients else [out]
    return [tensor.detach() for tensor in found]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=list(ENGINES), default="split_cpu")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=[str(kind).split(".")[1] for kind in TOLERANCE], default="float32")
    parser.add_argument("--forward-only", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="take every so-manyth case")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is here; leave it out for the CPU")
    failures = 0
    cases = CASES + (LARGE if args.device == "cuda" else ())
    for case in cases[:: args.every]:
        found = worst(args.engine, case, dtype, args.device, not args.forward_only)
        good = found <= TOLERANCE[dtype]
        failures += not good
        print(json.dumps({"case": str(case), "worst": found, "good": good}), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    run_script(main)
