"""[R | C] attention on the CPU: the engines side by side, as ratios to the dense mask in one run.

    python benchmarks/attention.py                 n = 256 .. 4096, r = n/2, 8 heads of 64, float32
    python benchmarks/attention.py --rows 256 512  fewer
    python benchmarks/attention.py --intervals     CPU time, for busy machines: a plain window, and 8 packed documents a
                                                   row, each with an R of half its rows

Written to benchmarks/results/attention.json and .png. Ideal: the mask allows 0.625 of the square at r = c; a plain
causal window allows 0.5.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from options import options
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from megarc.attention import attend, column_split
from megarc.attention.mask import Mask
from megarc.attention.parity import Case
from megarc.errors import run_script
from megarc.report import table
from megarc.window import pairs

HEADS, HEAD_DIM, REPEATS = 8, 64, 7
RESULTS = Path(__file__).parent / "results"
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
Call = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def main() -> int:
    parser = options(__doc__, "attention.json")
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument(
        "--intervals", action="store_true", help="packed documents, and the plain window's overhead"
    )
    arguments = parser.parse_args()
    if arguments.intervals:
        return intervals(arguments.rows, arguments.out.with_name("attention_intervals.json"))
    found = {rows: measure(rows, rows // 2) for rows in arguments.rows}
    columns = ["rows", *next(iter(found.values()))]
    for what in ("forward", "forward+backward"):
        print(f"{what}, ratio to the dense mask")
        print(
            table(
                columns, [[rows, *[cell(one[what]) for one in row.values()]] for rows, row in found.items()]
            )
        )
    facts = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
             "heads": HEADS, "head_dim": HEAD_DIM, "ratios": found,
             "allowed": {rows: pairs(rows, rows // 2) / rows**2 for rows in found}}  # fmt: skip
    arguments.out.write_text(json.dumps(facts, indent=1) + "\n")
    plot(found, arguments.out.with_suffix(".png"))
    return 0


def cell(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def engines(rows: int, recent: int) -> dict[str, Call]:
    dense = Mask(recent).dense(rows, device=torch.device("cpu"))[0]
    lower_right = causal_lower_right(rows - recent, rows)

    def row_split(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        head = functional.scaled_dot_product_attention(q[:, :, :recent], k[:, :, :recent], v[:, :, :recent])
        tail = functional.scaled_dot_product_attention(q[:, :, recent:], k, v, attn_mask=lower_right)
        return torch.cat((head, tail), 2)

    return {
        "dense mask": lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=dense),
        "row split": row_split,
        "column split (split_cpu)": lambda q, k, v: attend(q, k, v, recent, engine="split_cpu"),
        "flex": lambda q, k, v: attend(q, k, v, recent, engine="flex"),
        "causal": lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
    }


def measure(rows: int, recent: int) -> dict[str, dict[str, float | None]]:
    """Median seconds over that of the dense mask, the engines taking turns."""
    torch._dynamo.reset()
    shape = (max(1, 2048 // rows), HEADS, rows, HEAD_DIM)
    inputs = [torch.randn(shape) for _ in range(3)]
    seconds: dict[str, dict[str, list[float]]] = {}
    calls = engines(rows, recent)
    for turn in range(REPEATS + 1):
        for name, call in calls.items():
            for what in ("forward", "forward+backward"):
                if name == "flex" and what != "forward":
                    continue  # torch has no backward pass of it for the CPU
                spent = timed(call, inputs, backward=what != "forward")
                if turn:
                    seconds.setdefault(name, {}).setdefault(what, []).append(spent)
    medians = {
        name: {what: statistics.median(times) for what, times in kinds.items()}
        for name, kinds in seconds.items()
    }
    base = medians["dense mask"]
    return {
        name: {what: kinds[what] / base[what] if what in kinds else None for what in base}
        for name, kinds in medians.items()
    }


class Bare(torch.autograd.Function):
    """The column split as two calls of torch's flash attention and nothing else."""

    @staticmethod
    def forward(ctx, q, k, v, recent):
        scale = HEAD_DIM**-0.5
        out, lse = FLASH(q, k[:, :, :recent], v[:, :, :recent], 0.0, False, scale=scale)
        tail = slice(recent, None)
        out_c, lse_c = FLASH(q[:, :, tail], k[:, :, tail], v[:, :, tail], 0.0, True, scale=scale)
        column_split.merge_(out[:, :, tail], lse[:, :, tail], out_c, lse_c)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.recent, ctx.scale = recent, scale
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, out, lse = ctx.saved_tensors
        head, tail, scale = slice(ctx.recent), slice(ctx.recent, None), ctx.scale
        grad = grad.contiguous()
        grads = FLASH_BACKWARD(grad, q, k[:, :, head], v[:, :, head], out, lse, 0.0, False, scale=scale)
        parts = [x[:, :, tail] for x in (grad, q, k, v, out, lse)]
        own = FLASH_BACKWARD(*parts, 0.0, True, scale=scale)
        grads[0][:, :, tail] += own[0]
        return grads[0], torch.cat((grads[1], own[1]), 2), torch.cat((grads[2], own[2]), 2), None


def intervals(counts: list[int], out: Path) -> int:
    """CPU time, forward and backward, least of several turns.

    A plain window over its two bare calls; packed documents over a dense mask of the same.
    """
    found = {}
    for rows in counts:
        batch = max(1, 2048 // rows)
        case = Case(rows, 0, documents=((rows // 8, rows // 16),) * 8, batch=batch)
        seen = case.seen()
        dense = Mask.of(seen).dense(rows, device=torch.device("cpu"))[:, None]
        calls: dict[str, Call] = {
            "plain": lambda q, k, v, r=rows // 2: attend(q, k, v, r, engine="split_cpu"),
            "bare": lambda q, k, v, r=rows // 2: Bare.apply(q, k, v, r),
            "packed": lambda q, k, v, seen=seen: attend(q, k, v, seen, engine="split_cpu"),
            "dense": lambda q, k, v, mask=dense: functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask
            ),
        }
        inputs = [torch.randn(batch, HEADS, rows, HEAD_DIM) for _ in range(3)]
        spent: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(REPEATS + 1):
            for name, call in calls.items():
                cost = timed(call, inputs, backward=True, clock=time.process_time)
                if turn:
                    spent[name].append(cost)
        best = {name: min(times) for name, times in spent.items()}
        found[rows] = {
            "plain window / dense mask": best["plain"] / best["dense"],
            "plain window / two calls of torch's kernel": best["plain"] / best["bare"],
            "8 documents / dense mask": best["packed"] / best["dense"],
        }
    print("CPU time, forward and backward")
    columns = ["rows", *next(iter(found.values()))]
    print(table(columns, [[rows, *map(cell, row.values())] for rows, row in found.items()]))
    facts = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
             "heads": HEADS, "head_dim": HEAD_DIM, "ratios": found}  # fmt: skip
    out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


def timed(
    call: Call,
    inputs: list[torch.Tensor],
    backward: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    q, k, v = (tensor.detach().requires_grad_(backward) for tensor in inputs)
    begun = clock()
    out = call(q, k, v)
    if backward:
        out.sum().backward()
    return clock() - begun


def plot(found: dict[int, dict[str, dict[str, float | None]]], path: Path) -> None:
    from megarc.report.style import PALETTE, label_ends, new_figure, plain_axes, save

    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    ends = []
    for name, colour in zip(next(iter(found.values())), PALETTE, strict=False):
        points = [(rows, row[name]["forward+backward"]) for rows, row in found.items()]
        points = [(x, y) for x, y in points if y is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "-o", color=colour)
            ends.append((*points[-1], name, colour))
    plain_axes(
        axes, "[R | C] attention on the CPU, r = n/2, forward and backward", "rows n", "time / dense mask's"
    )
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 1.1)
    label_ends(axes, ends)
    save(figure, path)


if __name__ == "__main__":
    run_script(main)
