#!/usr/bin/env bash
# Triton 3.7.1: in the interpreter (TRITON_INTERPRET=1) a cast to bf16 cuts the number off, and a cast to fp8 turns nan, inf
# and large numbers into ordinary ones.
#
# Guess:   `x.to(tl.bfloat16)` rounds to the nearest, ties to even, as kernels on a GPU do; fp8 e4m3 keeps nan and gives 448
#          or nan for what is too large. The manual excludes only operations on bf16 from the interpreter, and advises a cast.
# Seen:    1.005 becomes 1.0 in bf16 (torch: 1.0078125). In e4m3 nan becomes 384, inf 256, 500 becomes 256, and 0.001
#          becomes 0 (torch: nan, 448, 448 and 0.00195); e4m3's own nan is read as 480. In e5m2 a tie is rounded up.
# Matters: in a kernel's tests without a GPU each cast to bf16 makes numbers 0.2 to 0.4 % smaller on average, and an overflow
#          or a nan in fp8 cannot be seen.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 triton==3.7.1 numpy==2.3.5 setuptools==80.9.0
cat >"$folder/look.py" <<'PY'
import sys

import torch
import triton
import triton.language as tl


@triton.jit
def cast(source, target):
    tl.store(target, tl.load(source).to(target.dtype.element_ty))


def casts(value: float, source: torch.dtype, target: torch.dtype) -> tuple[str, str]:
    """By Triton's interpreter, by torch."""
    number, found = torch.tensor([value]).to(source), torch.zeros(1, dtype=target)
    cast[(1,)](number, found)
    return f"{found.float().item():.6g}", f"{number.to(target).float().item():.6g}"


F32, BF16, E4M3, E5M2 = torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2
NAN, INF = float("nan"), float("inf")
EXPECTED = {
    (1.005, F32, BF16): ("1", "1.00781"),
    (-1.005, F32, BF16): ("-1", "-1.00781"),
    (NAN, F32, BF16): ("nan", "nan"),
    (300.0, F32, E4M3): ("288", "288"),
    (500.0, F32, E4M3): ("256", "448"),
    (INF, F32, E4M3): ("256", "448"),
    (NAN, F32, E4M3): ("384", "nan"),
    (0.001, F32, E4M3): ("0", "0.00195312"),
    (NAN, E4M3, F32): ("480", "nan"),
    (1.125, F32, E5M2): ("1.25", "1"),
}
print("triton", triton.__version__, "torch", torch.__version__)
same = True
for (value, source, target), expected in EXPECTED.items():
    seen = casts(value, source, target)
    print(f"{value} from {source} to {target}: {seen[0]} in the interpreter, {seen[1]} by torch")
    same &= seen == expected
print("as stated" if same else "this has changed")
sys.exit(not same)
PY
status=0
TRITON_INTERPRET=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore "$folder/look.py" || status=1
exit $status
