"""Mixers on one GPU: flash-linear-attention's kernels against our scan, and a block of each mixer as R grows; offline.

    python benchmarks/gpu/mixers.py                      about 3 minutes; pip install flash-linear-attention first
    python benchmarks/gpu/mixers.py --device cpu --toy   a few rows on the CPU; a stand-in takes the kernel's place

First the parity of what runs ``execution.recurrence``: values and gradients of torch's scan and of the kernels against
the recurrence row by row in float64, each as the difference's norm over the norm; the kernels must be within ten times
torch's error, or within what TF32 rounds. Then milliseconds and memory of one block, forward and backward, in bf16 at
C = 512, with every mixer, and with ssm by the kernels. Written to benchmarks/results/gpu-mixers.json with the device's
name.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import torch  # noqa: E402
from options import gpu_options, need_gpu  # noqa: E402
from support.mixers import row_by_row  # noqa: E402
from torch import Tensor  # noqa: E402

from megarc.model import ExecutionConfig, ModelConfig, Transformer, initialise  # noqa: E402
from megarc.model.mixers import fla_scan  # noqa: E402
from megarc.model.mixers.scan import scan  # noqa: E402

LENGTHS, CAUSAL = (512, 2048, 8192, 32768, 65536), 512
KEYS = {"layers": 1, "hidden": 1024, "heads": 16, "vocabulary": 256}
TOY = {"layers": 1, "hidden": 32, "heads": 2, "vocabulary": 64}
MIXERS = ("attention", "ssm", "ssm by fla", "ssm_attention", "crf")
ROUNDED = 2e-3  # of TF32 products, relative


def main() -> None:
    parser = gpu_options(__doc__, "gpu-mixers.json", toy="two short R, one repeat")
    arguments = parser.parse_args()
    need_gpu(arguments.device)
    device = torch.device(arguments.device)
    if arguments.toy:
        fla_scan.scan = stand_in_scan  # type: ignore[assignment]
    report = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "kernels": kernels(device, arguments),
    }
    sizes = itertools.product(rows_of(arguments), (False, True))
    report["parity"] = [parity(rows, strict, device, arguments) for rows, strict in sizes]
    lengths = (16, 40) if arguments.toy else LENGTHS
    report["blocks"] = [blocks(recent, device, arguments) for recent in lengths]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def kernels(device: torch.device, arguments: argparse.Namespace) -> str:
    """What the column ``fla`` is: a version, a stand-in, or why there is none."""
    if arguments.toy:
        return "a stand-in: torch's scan in the kernel's layout"
    if reason := fla_scan.refuse(device):
        return f"refused: {reason}"
    from importlib.metadata import version

    return f"flash-linear-attention {version('flash-linear-attention')}"


def rows_of(arguments: argparse.Namespace) -> tuple[int, ...]:
    """Of the parity; odd sizes among them."""
    return (7, 65) if arguments.toy else (64, 1000, 2048)


def stand_in(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,
    initial_state: Tensor | None,
    output_final_state: bool,
) -> tuple[Tensor, Tensor]:
    """Torch's scan with the arguments and the layout of ``chunk_simple_gla``: rows before heads."""
    assert output_final_state
    q, k, v, g = (x.transpose(1, 2) for x in (q, k, v, g))
    read, state = scan(q * scale, k, v, g, state=initial_state)
    return read.transpose(1, 2), state


def stand_in_scan(q, k, v, decay, first=None, state=None, *, strict=False):
    """``fla_scan.scan`` with the stand-in."""
    if first is not None:
        return scan(q, k, v, decay, first, state, strict=strict)
    return fla_scan.by_kernel(stand_in, q, k, v, decay, state, strict=strict)


def parity(rows: int, strict: bool, device: torch.device, arguments: argparse.Namespace) -> dict:
    """Relative errors of values, state and gradients: the worst of them, by what ran the recurrence."""
    torch.manual_seed(rows)
    batch, heads, width = (1, 2, 8) if arguments.toy else (2, 4, 64)
    q, k, v = (torch.randn(batch, heads, rows, width, dtype=torch.float64) / width**0.25 for _ in range(3))
    decay = -torch.rand(batch, heads, rows, dtype=torch.float64) / 8
    state = torch.randn(batch, heads, width, width, dtype=torch.float64)
    given = [q, k, v, decay, state]
    weights = [torch.randn(batch, heads, rows, width, dtype=torch.float64), torch.randn_like(state)]
    expected = results(row_by_row, given, weights, strict, torch.float64, torch.device("cpu"))
    found: dict = {"rows": rows, "strict": strict}
    for name, run in (("torch", scan), ("fla", fla_scan.scan)):
        if name == "fla" and not arguments.toy and fla_scan.refuse(device):
            continue
        ours = results(run, given, weights, strict, torch.float32, device)
        pairs = zip(ours, expected, strict=True)
        found[name] = max(((one.cpu().double() - other).norm() / other.norm()).item() for one, other in pairs)
    if "fla" in found:
        found["good"] = found["fla"] <= max(10 * found["torch"], ROUNDED)
    return found


def results(
    run: Callable[..., tuple[Tensor, Tensor]],
    given: list[Tensor],
    weights: list[Tensor],
    strict: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Tensor]:
    """What rows read, the state behind them, and the gradients of their weighted sum."""
    q, k, v, decay, state = leaves = [x.to(device, dtype).requires_grad_() for x in given]
    found = run(q, k, v, decay, state=state, strict=strict)
    total = sum((x * weight.to(device, dtype)).sum() for x, weight in zip(found, weights, strict=True))
    return [x.detach() for x in (*found, *torch.autograd.grad(total, leaves))]


def blocks(recent: int, device: torch.device, arguments: argparse.Namespace) -> dict:
    """Milliseconds and peak MiB of a block, forward and backward, with each mixer."""
    causal = 16 if arguments.toy else CAUSAL
    keys = TOY if arguments.toy else KEYS
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    x = torch.randn(1, recent + causal, keys["hidden"], device=device, dtype=dtype)
    found: dict = {"recent": recent, "causal": causal}
    for name in MIXERS:
        if name == "ssm by fla" and not arguments.toy and fla_scan.refuse(device):
            continue
        config = ModelConfig(mixers=name.split()[0], **keys)
        execution = ExecutionConfig(recurrence="fla" if name == "ssm by fla" else "torch")
        model = Transformer(config, execution).to(device, dtype)
        initialise(model, config, 0)
        try:
            found[name] = timed(lambda model=model: once(model, x, recent), device, arguments)
        except torch.cuda.OutOfMemoryError as error:  # one mixer's failure must not cost the table
            found[name] = {"failed": str(error)[:120]}
    return found


def once(model: Transformer, x: Tensor, recent: int) -> None:
    model.blocks[0](x.clone().requires_grad_(), recent).sum().backward()


def timed(call: Callable[[], None], device: torch.device, arguments: argparse.Namespace) -> dict[str, float]:
    """The median of repeated runs, each waited for."""
    for _ in range(1 if arguments.toy else 3):
        call()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(1 if arguments.toy else 10):
        wait(device)
        begun = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - begun)
    found = {"ms": 1e3 * statistics.median(times)}
    if device.type == "cuda":
        found["MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return found


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
