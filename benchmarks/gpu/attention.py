"""[R | C] attention on one GPU: every engine, in useful TFLOP/s and as ratios, offline on a bare machine.

    python benchmarks/gpu/attention.py                     n = 1024 .. 16384, r/n = .5, 0, .9
    python benchmarks/gpu/attention.py --seconds 300       as many of them as fit, the most telling ones first
    python benchmarks/gpu/attention.py --device cpu --toy  a few rows on the CPU, to see that it runs
    python benchmarks/gpu/attention.py --tiles             times tile plans of the Triton kernel instead

First each engine's parity (`megarc/attention/parity.py`); one that is wrong is not timed. Useful FLOPs: 4 d pairs
forward, 14 d pairs forward and backward, a head. Beside the engines: torch's cuDNN or flash attention, causal and
full, of the same rows. Written to benchmarks/results/gpu-attention.json with the device's name.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from options import gpu_options, need_gpu  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

from megarc.attention import ENGINES, attend  # noqa: E402
from megarc.attention.parity import CASES, LARGE, TOLERANCE, worst  # noqa: E402
from megarc.window import pairs  # noqa: E402

SHAPES = [
    (round(share * rows), rows - round(share * rows))
    for share in (0.5, 0.0, 0.9)
    for rows in (1024, 2048, 4096, 8192, 16384)
]
HEADS = ((128, 8), (64, 8), (128, 1), (64, 1))  # head_dim, query heads that share a key head
TOKENS = 16384
TARGETS = {512: 350, 1024: 450, 2048: 530, 4096: 570}  # useful TFLOP/s, hd 128, forward + backward, H100


def main() -> None:
    parser = gpu_options(__doc__, "gpu-attention.json", toy="tiny shapes, two repeats")
    parser.add_argument("--tiles", action="store_true", help="time tile plans of the Triton kernel")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no other shape after so many")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    need_gpu(arguments.device)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    report = {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "parity": {name: parity(name, dtype, arguments) for name in ENGINES},
    }
    if arguments.tiles:
        report["tiles"] = sweep_tiles(dtype, arguments)
    else:
        good = [name for name, found in report["parity"].items() if found.get("good")]
        report["rows"] = []
        for head_dim, groups in HEADS:
            for shape in [(24, 24), (17, 30)] if arguments.toy else SHAPES:
                if time.monotonic() < end:
                    row = time_shape(shape, head_dim, groups, good, dtype, arguments)
                    report["rows"].append(row)
                    report["order"] = order(report["rows"], good)
                    write(report, arguments.out)
    write(report, arguments.out)
    print(json.dumps(report, indent=1))


def write(report: dict, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


def order(rows: list[dict], engines: list[str]) -> dict[str, float]:
    """Engines by their time over the fastest one's, forward and backward, the geometric mean of the shapes that each
    could do: the order that ``auto`` should have on this card."""
    found = {}
    for name in engines:
        ratios = [
            row[key]["ms"] / min(row[f"{one}, forward+backward"]["ms"] for one in row["verdict"]["timed"])
            for row in rows
            if "ms" in row.get(key := f"{name}, forward+backward", {})
        ]
        if ratios:
            found[name] = statistics.geometric_mean(ratios)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def parity(engine: str, dtype: torch.dtype, arguments: argparse.Namespace) -> dict:
    """The worst difference to the float64 reference over all cases, or why the engine cannot serve."""
    reason = ENGINES[engine].refuse(torch.device(arguments.device), dtype, 128)
    if reason is not None:
        return {"refused": reason}
    cases = CASES[:3] if arguments.toy else (*CASES, *LARGE)
    gradients = not (engine == "flex" and arguments.device == "cpu")
    found = []
    for case in cases:
        torch._dynamo.reset()
        if ENGINES[engine].refuse(torch.device(arguments.device), dtype, case.head_dim) is None:
            found.append(worst(engine, case, dtype, arguments.device, gradients))
    return {"worst": max(found), "good": max(found) <= TOLERANCE[dtype], "cases": len(found)}


def time_shape(
    shape: tuple[int, int],
    head_dim: int,
    groups: int,
    good: list[str],
    dtype: torch.dtype,
    arguments: argparse.Namespace,
) -> dict:
    recent, causal = shape
    rows, heads = recent + causal, 2048 // head_dim if not arguments.toy else 4
    kv_heads = max(1, heads // groups)
    batch = max(1, TOKENS // rows) if not arguments.toy else 1
    device = arguments.device
    q = torch.randn(batch, heads, rows, head_dim, device=device, dtype=dtype, requires_grad=True)
    k, v = (
        torch.randn(batch, kv_heads, rows, head_dim, device=device, dtype=dtype, requires_grad=True)
        for _ in range(2)
    )
    grouped = kv_heads != heads
    if device == "cpu":
        # no backward pass there, and it refuses leaves that want one
        good = [name for name in good if name != "flex"]
    calls: dict[str, Callable[[], Tensor]] = {
        name: lambda name=name: attend(q, k, v, recent, engine=name) for name in good if name != "reference"
    }
    calls["torch causal"] = lambda: torch_attention(q, k, v, grouped, causal=True)
    calls["torch full"] = lambda: torch_attention(q, k, v, grouped, causal=False)
    useful = {"torch causal": pairs(rows, 0), "torch full": rows * rows}
    found = {
        "recent": recent,
        "causal": causal,
        "head_dim": head_dim,
        "heads": heads,
        "kv_heads": kv_heads,
        "batch": batch,
    }
    for name, call in calls.items():
        torch._dynamo.reset()
        flops = batch * heads * head_dim * useful.get(name, pairs(rows, recent))
        for what, factor, backward in (("forward", 4, False), ("forward+backward", 14, True)):
            try:
                spent = seconds(call, (q, k, v), backward, arguments)
            except Exception as error:  # one engine's failure must not cost the table
                found[f"{name}, {what}"] = {"failed": f"{type(error).__name__}: {error}"[:200]}
                continue
            found[f"{name}, {what}"] = {"ms": spent * 1e3, "useful_tflops": factor * flops / spent / 1e12}
    found["verdict"] = verdict(found, [name for name in calls if not name.startswith("torch")])
    if head_dim == 128 and groups == 1 and recent == causal:
        found["verdict"]["target_tflops"] = TARGETS.get(recent)
    return found


def torch_attention(q: Tensor, k: Tensor, v: Tensor, grouped: bool, causal: bool) -> Tensor:
    """torch's own attention: cuDNN's on CUDA, so that every run compares with the same peer."""
    if q.device.type == "cpu":
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)


def verdict(found: dict, engines: list[str]) -> dict:
    """The best engine forward and backward, and the ratios that the targets name."""
    what = "forward+backward"
    timed = {name: found[f"{name}, {what}"]["ms"] for name in engines if "ms" in found[f"{name}, {what}"]}
    if not timed:
        return {}
    best = min(timed, key=timed.__getitem__)
    ratios: dict[str, object] = {
        "best": best,
        "timed": list(timed),
        "useful_tflops": found[f"{best}, {what}"]["useful_tflops"],
        "time / torch full": timed[best] / found[f"torch full, {what}"].get("ms", float("nan")),
    }
    if "flex" in timed:
        ratios |= {
            f"speed of {name} / flex": timed["flex"] / timed[name]
            for name in (best, "triton")
            if name in timed
        }
    return ratios


def seconds(
    call: Callable[[], Tensor], leaves: tuple[Tensor, ...], backward: bool, arguments: argparse.Namespace
) -> float:
    """The median of repeated runs, each waited for."""

    def once() -> None:
        out = call()
        if backward:
            torch.autograd.grad(out, leaves, torch.ones_like(out))

    for _ in range(3):
        once()
    times = []
    for _ in range(2 if arguments.toy else 20):
        wait(arguments.device)
        begun = time.perf_counter()
        once()
        wait(arguments.device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def sweep_tiles(dtype: torch.dtype, arguments: argparse.Namespace) -> list[dict]:
    """Times of the three Triton kernels under other tiles, r = c = 2048: each varied alone, the others as planned."""
    from megarc.attention import triton_fused
    from megarc.attention.mask import Mask
    from megarc.attention.triton_fused import Tiles

    batch, heads, rows = (1, 1, 64) if arguments.toy else (4, 16, 4096)
    found: list[dict] = []
    mask, scale = Mask(rows // 2), 0.1
    for head_dim in (64, 128):
        q, k, v, grad = (
            torch.randn(batch, heads, rows, head_dim, device=arguments.device, dtype=dtype) for _ in range(4)
        )
        out, lse = triton_fused.forward(q, k, v, mask, scale)
        cuts = (
            [(64, 64, 4, 2)]
            if arguments.toy
            else itertools.product((32, 64, 128), (64, 128), (4, 8), (2, 3, 4))
        )
        for cut, kernel in itertools.product(cuts, ("forward", "backward_rows", "backward_keys")):
            tiles = replace(triton_fused.plan(head_dim), **{kernel: Tiles(*cut)})
            row = {"head_dim": head_dim, "kernel": kernel, "tiles": cut}

            def call(tiles=tiles, q=q, k=k, v=v, grad=grad, out=out, lse=lse, kernel=kernel):
                if kernel == "forward":
                    return triton_fused.forward(q, k, v, mask, scale, tiles.forward)[0]
                return triton_fused.backward(grad, q, k, v, out, lse, mask, scale, tiles)[0]

            try:
                found.append(row | {"ms": seconds(call, (), False, arguments) * 1e3})
            except Exception as error:  # too much shared memory
                found.append(row | {"failed": str(error)[:120]})
    return found


if __name__ == "__main__":
    main()
