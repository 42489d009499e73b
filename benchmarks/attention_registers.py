"""Compiles the fused attention kernels for sm_90, on any machine, and records what they need of it.

    python benchmarks/attention_registers.py [--out benchmarks/results/attention_registers.json]

For each kernel of the default plan: registers a thread, bytes of spills a thread,
shared memory a program, and whether the tensor cores' wgmma is used. Ends with 1 where
one of the default configuration spills.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from options import options
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from megarc.attention import triton_kernels
from megarc.attention.triton_fused import Plan, Tiles, plan, width
from megarc.errors import run_script

SM90 = GPUTarget("cuda", 90, 32)
SHARED_LIMIT = 227 * 1024  # bytes of shared memory that a program may have on sm_90


@dataclass(frozen=True)
class Footprint:
    """What one compiled kernel needs."""

    kernel: str
    dtype: str
    head_dim: int
    masks: str
    rows: int
    keys: int
    warps: int
    stages: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    wgmma: int


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, help="where the JSON goes; none: print only")
    parser.add_argument("--quick", action="store_true", help="bfloat16 and one recent only, as CI does")
    args = parser.parse_args()
    found = [
        footprint(kernel, dtype, head_dim, intervals, plan(head_dim, intervals))
        for dtype in ("bf16",)
        for head_dim in ((64,) if args.quick else (64, 128))
        for intervals in (False, True)
        for kernel in ("forward", "backward_rows", "backward_keys")
    ]  # fmt: skip
    for one in found:
        print(json.dumps(asdict(one)))
    if args.out:
        report = {
            "command": "python benchmarks/attention_registers.py --out " + args.out.as_posix(),
            "triton": triton.__version__,
            "target": "sm_90",
            "kernels": [asdict(one) for one in found],
        }
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    bad = [one for one in found if one.spilled_bytes]
    for one in bad:
        print(f"spills: {one}")
    return 1 if bad else 0


def footprint(name: str, dtype: str, head_dim: int, intervals: bool, tiles: Plan) -> Footprint:
    """Compiles one kernel for sm_90."""
    cut: Tiles = getattr(tiles, name)
    kernel = getattr(triton_kernels, name)
    constants = {
        "ROWS": cut.rows, "KEYS": cut.keys, "DIM": head_dim, "WIDTH": width(head_dim),
        "INTERVALS": intervals, "WIDE": False,
    }  # fmt: skip
    signature = {arg: _type(arg, dtype, constants) for arg in kernel.arg_names}
    # What the launcher would find: pointers and strides that are multiples of 16.
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, arg in enumerate(kernel.arg_names)
        if arg.endswith(("_ptr", "_b", "_h", "_n"))
    }
    source = ASTSource(
        kernel, signature, {(kernel.arg_names.index(a),): c for a, c in constants.items()}, aligned
    )
    built = triton.compile(source, target=SM90, options={"num_warps": cut.warps, "num_stages": cut.stages})
    registers, spilled = _resources(built.asm["cubin"])
    masks = "intervals" if intervals else "one recent"
    return Footprint(
        name, dtype, head_dim, masks, cut.rows, cut.keys, cut.warps, cut.stages,
        registers, spilled, built.metadata.shared, built.asm["ptx"].count("wgmma.mma_async"),
    )  # fmt: skip


def _type(arg: str, dtype: str, constants: dict[str, Any]) -> str:
    if arg in constants:
        return "constexpr"
    if arg in ("lse_ptr", "delta_ptr"):
        return "*fp32"
    if arg in ("begin_ptr", "end_ptr", "spans_ptr"):
        return "*i32"
    if arg.endswith("_ptr"):
        return f"*{dtype}"
    return "fp32" if arg == "scale" else "i32"


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers a thread and bytes of its stack, which holds what spills, by NVIDIA's cuobjdump."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    match = re.search(r"REG:(\d+) STACK:(\d+)", text.stdout + text.stderr)
    if match is None:
        raise RuntimeError(f"cuobjdump said: {text.stdout} {text.stderr}")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    run_script(main)
