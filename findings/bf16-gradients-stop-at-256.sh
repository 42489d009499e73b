#!/usr/bin/env bash
# torch 2.13.0, CPU, bf16: the gradients of an embedding and of LayerNorm stop at 256, because they are summed in bf16.
#
# Guess:   sums over a batch are kept in float32 and rounded once, as in a matrix product: 4,096 rows of gradient 1 give 4,096.
# Seen:    256 for an embedding's row, for LayerNorm's weight and bias, for index_put_(accumulate=True), x[index] and
#          segment_reduce; 2,048 in float16. Linear, RMSNorm, index_select and index_add_ of rows are right, index_add_ of a
#          vector is not. index_reduce_ says that the mean of 4,096 ones is 1/16.
# Matters: 256 + 1 is 256 in bf16. A frequent token, or a norm's bias in a batch of some thousand tokens, gets a
#          fraction of its gradient; a model with RMSNorm trains rightly beside it, so it looks like a property of LayerNorm.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.3.5 setuptools==80.9.0
cat >"$folder/look.py" <<'PY'
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS, WIDTH = 4096, 8
ONE = torch.ones(ROWS, dtype=torch.int64)


def of_weight(call: Callable[[Tensor], Tensor], dtype: torch.dtype) -> float:
    """The gradient of row 1 of a table, which the call reads 4,096 times."""
    table = nn.Parameter(torch.zeros(3, WIDTH, dtype=dtype))
    call(table).sum().backward()
    return table.grad[1, 0].item()


def of_module(module: nn.Module, name: str, dtype: torch.dtype) -> float:
    """The gradient of one number of a module's parameter from 4,096 equal rows whose normalized entries are 1 and -1."""
    module.to(dtype)(torch.tensor([1.0, -1.0], dtype=dtype).repeat(ROWS, WIDTH // 2)).sum().backward()
    return module.get_parameter(name).grad.flatten()[0].item()


def cases(dtype: torch.dtype) -> dict[str, float]:
    ones, zeros = torch.ones(ROWS, WIDTH, dtype=dtype), torch.zeros(3, WIDTH, dtype=dtype)
    return {
        "embedding": of_weight(lambda table: F.embedding(ONE, table), dtype),
        "table[index]": of_weight(lambda table: table[ONE], dtype),
        "index_select": of_weight(lambda table: table.index_select(0, ONE), dtype),
        "LayerNorm weight": of_module(nn.LayerNorm(WIDTH), "weight", dtype),
        "LayerNorm bias": of_module(nn.LayerNorm(WIDTH), "bias", dtype),
        "RMSNorm weight": of_module(nn.RMSNorm(WIDTH), "weight", dtype),
        "Linear bias": of_module(nn.Linear(WIDTH, WIDTH), "bias", dtype),
        "index_put_": zeros.index_put((ONE,), ones, accumulate=True)[1, 0].item(),
        "index_add_, rows": zeros.index_add(0, ONE, ones)[1, 0].item(),
        "index_add_, vector": zeros[:, 0].clone().index_add(0, ONE, ones[:, 0].clone())[1].item(),
        "segment_reduce": torch.segment_reduce(ones[:, 0].clone(), "sum", lengths=torch.tensor([ROWS])).item(),
        "index_reduce_, mean": zeros.index_reduce(0, ONE, ones, "mean", include_self=False)[1, 0].item(),
    }


torch.set_num_threads(1)
print("torch", torch.__version__)
KEPT = {"index_select", "RMSNorm weight", "Linear bias", "index_add_, rows"}
same = True
for dtype, most in ((torch.bfloat16, 256), (torch.float16, 2048)):
    for name, value in cases(dtype).items():
        print(f"{dtype}, {name}: {value:g}")
        expected = ROWS if name in KEPT else most / ROWS if "mean" in name else most
        same &= value == expected
print("as stated" if same else "this has changed")
sys.exit(not same)
PY
status=0
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore "$folder/look.py" || status=1
exit $status
