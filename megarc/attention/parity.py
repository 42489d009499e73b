"""One suite for every engine: values and gradients against the float64 reference.

    python -m megarc.attention.parity --engine triton --device cuda --dtype bfloat16
    TRITON_INTERPRET=1 python -m megarc.attention.parity --engine triton --dtype float32

The tests run it for the engines that a CPU can run, benchmarks/gpu/attention.py for all.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from megarc.attention.dispatch import ENGINES, attend
from megarc.errors import UserError, run_script
from megarc.interval import Intervals, Seen

TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest difference allowed, relative to 1 + the largest value. The half precisions keep 11 and 8 bits."""


@dataclass(frozen=True, slots=True)
class Case:
    """Sizes of one comparison.

    Attributes:
        recent: rows of R of a plain window, or of each sample.
        documents: rows of each document and of its R, one after the other; the second sample has
            them in reverse. Empty: one document.
        sliding: keys that a row sees at most; None: any number.
    """

    rows: int
    recent: int | tuple[int, ...]
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 64
    documents: tuple[tuple[int, int], ...] = ()
    sliding: int | None = None
    batch: int = 2

    def inputs(self, dtype: torch.dtype, device: str) -> tuple[list[Tensor], Seen]:
        """``[q, k, v, grad]`` and what rows see; q and the gradient as views of ``[B, n, H, d]``."""
        generator = torch.Generator().manual_seed(self.rows)
        counts = (self.heads, self.kv_heads, self.kv_heads, self.heads)
        tensors = [
            torch.randn(self.batch, self.rows, count, self.head_dim, generator=generator)
            .to(device, dtype)
            .transpose(1, 2)
            for count in counts
        ]
        return tensors, self.seen(device)

    def seen(self, device: str = "cpu") -> Seen:
        """What its rows see."""
        if isinstance(self.recent, int) and not self.documents and self.sliding is None:
            return self.recent
        recent = np.broadcast_to(np.asarray(self.recent, dtype=np.int32), (self.batch,))
        numbers = ends = None
        if self.documents:
            both = [_packed(self.documents), _packed(self.documents[::-1])]
            numbers, ends = (np.stack([both[i % 2][j] for i in range(self.batch)]) for j in (0, 1))
        made = Intervals.of(self.rows, recent, numbers, ends, self.sliding)
        return made.map(lambda array: torch.as_tensor(array).to(device))

    def __str__(self) -> str:
        heads = f"{self.heads}:{self.kv_heads} heads of {self.head_dim}"
        more = f", {len(self.documents)} documents" if self.documents else ""
        return f"n {self.rows}, r {self.recent}, {heads}{more}, sliding {self.sliding}"


def _packed(documents: tuple[tuple[int, int], ...]) -> tuple[npt.NDArray[np.int32], ...]:
    """The document of each row, and the row behind its R: [rows] each."""
    lengths = [length for length, _ in documents]
    ends = np.cumsum([0, *lengths[:-1]]) + [recent for _, recent in documents]
    return tuple(np.repeat(part, lengths).astype(np.int32) for part in (np.arange(len(lengths)), ends))


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
    Case(200, 0, documents=((66, 0), (66, 0), (66, 0), (2, 0))),
    Case(203, 0, documents=((101, 55), (1, 1), (1, 0), (100, 100)), heads=4, kv_heads=2),
    Case(140, (3, 140), sliding=33),
    Case(67, 0, documents=((1, 0),) * 60 + ((7, 3),)),
    Case(257, 0, documents=((3, 2), (254, 130)), sliding=70, heads=4, kv_heads=1, head_dim=16),
)
LARGE = (
    Case(1024, 512, heads=16, kv_heads=2, head_dim=128),
    Case(2047, 1000, heads=8, kv_heads=8, head_dim=128),
    Case(1500, (700, 1499), heads=4, kv_heads=1, head_dim=64),
    Case(1500, 0, heads=4, kv_heads=1, documents=((513, 500), (1, 0), (986, 400)), head_dim=128),
    Case(2048, 100, heads=4, kv_heads=2, sliding=300),
)
"""Added on a GPU."""


def worst(engine: str, case: Case, dtype: torch.dtype, device: str = "cpu", gradients: bool = True) -> float:
    """The largest difference of the output and the three gradients, relative to 1 + the largest value."""
    tensors, seen = case.inputs(dtype, device)
    found = _run(engine, tensors, seen, gradients)
    exact = _run("reference", [tensor.double() for tensor in tensors], seen, gradients)
    pairs = zip(found, exact, strict=True)
    return max(float((a.double() - b).abs().max() / (1 + b.abs().max())) for a, b in pairs)


def _run(engine: str, tensors: list[Tensor], seen: Seen, gradients: bool) -> list[Tensor]:
    *inputs, grad = tensors
    q, k, v = inputs = [tensor.detach().requires_grad_(gradients) for tensor in inputs]
    out = attend(q, k, v, seen, engine=engine)
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
