"""All engines that run here pass one suite; the others' splits are tested with a flash attention of our own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megarc.attention import ENGINES, attend, column_split, row_split
from megarc.attention.attention_call import Inputs, Outputs
from megarc.attention.parity import CASES, TOLERANCE, Case, worst
from megarc.errors import UserError
from megarc.window import allow

ROOT = Path(__file__).parents[2]
TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_split_cpu(case):
    assert worst("split_cpu", case, torch.float64) <= TOLERANCE[torch.float64]


@pytest.mark.parametrize("case", (*CASES[:9:3], *CASES[9:14:2]), ids=str)
def test_flex_forward(case):
    torch._dynamo.reset()
    assert worst("flex", case, torch.float32, gradients=False) <= TOLERANCE[torch.float32]


@TRITON
@pytest.mark.parametrize(("dtype", "every"), [("float32", 1), ("float16", 4), ("bfloat16", 4)])
def test_fused_kernel_in_tritons_interpreter(dtype, every):
    """In a process of its own: Triton reads the variable when it is imported."""
    command = "-W ignore -m megarc.attention.parity --engine triton --dtype"
    done = subprocess.run(
        [sys.executable, *command.split(), dtype, "--every", str(every)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == len(CASES[::every])


@TRITON
def test_fused_kernel_compiles_for_sm_90_without_a_spill():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "attention_registers.py", "--quick"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {kernel["kernel"] for kernel in kernels} == {"forward", "backward_rows", "backward_keys"}
    assert {kernel["masks"] for kernel in kernels} == {"one recent", "intervals"}
    assert all(kernel["spilled_bytes"] == 0 and kernel["wgmma"] > 0 for kernel in kernels)


class PlainFlash:
    """A flash attention's interface in plain float64 torch: what it may be asked, and no more."""

    def __init__(self, bottom_right):
        self.bottom_right = bottom_right

    def scores(self, q, k, causal, scale):
        scores = q @ k.transpose(-1, -2) * scale
        if causal:
            offset = k.shape[2] - q.shape[2] if self.bottom_right else 0
            seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(offset)
            scores = scores.masked_fill(~seen, float("-inf"))
        return scores

    def forward(self, call, causal):
        q, k, v, scale = call.q, call.k, call.v, call.scale
        lse = self.scores(q, k, causal, scale).logsumexp(-1)
        return (self.scores(q, k, causal, scale) - lse[..., None]).exp() @ v, lse

    def backward(self, call, outputs, causal):
        q, k, v, scale = call.q, call.k, call.v, call.scale
        grad, out, lse = outputs.grad, outputs.out, outputs.lse
        weights = (self.scores(q, k, causal, scale) - lse[..., None]).exp()
        grad_scores = weights * (grad @ v.transpose(-1, -2) - (grad * out).sum(-1, keepdim=True)) * scale
        return grad_scores @ k, grad_scores.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ grad


@pytest.mark.parametrize(("split", "bottom_right"), [(column_split, False), (row_split, True)])
@pytest.mark.parametrize(("rows", "recent"), [(1, 0), (7, 0), (7, 3), (7, 7), (9, 8), (33, 17)])
def test_both_splits_are_exact(split, bottom_right, rows, recent):
    """Global output and log-sum-exp in, true gradients out: what the engines on CUDA rest on."""
    torch.manual_seed(rows)
    q, k, v, grad = (torch.randn(2, 3, rows, 4, dtype=torch.float64) for _ in range(4))
    flash, scale = PlainFlash(bottom_right), 0.5
    call = Inputs(q, k, v, scale)
    out, lse = split.forward(flash, call, recent)
    found = [out, *split.backward(flash, call, Outputs(grad, out, lse), recent)]

    leaves = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
    at = torch.arange(rows)
    scores = leaves[0] @ leaves[1].transpose(-1, -2) * scale
    seen = allow(at[:, None], at[None, :], recent)
    expected = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ leaves[2]
    gradients = torch.autograd.grad(expected, leaves, grad)
    for one, other in zip(found, (expected, *gradients), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ["split_cudnn", "split_flash", "triton"])
def test_a_cuda_engine_says_why_it_cannot_serve_here(engine):
    assert engine in ENGINES
    tensors = [torch.randn(1, 2, 4, 16) for _ in range(3)]
    with pytest.raises(UserError, match=f"'{engine}' cannot be used here: .*use engine: auto"):
        attend(*tensors, 1, engine=engine)


@pytest.mark.parametrize("case", [Case(40, 17), Case(40, 0, documents=((30, 11), (10, 2)))], ids=str)
def test_one_node_for_the_compiler(case):
    """No graph break, and the same under recomputation; intervals come in as an argument."""
    from torch.utils.checkpoint import checkpoint

    torch._dynamo.reset()
    q, k, v = (torch.randn(2, 2, 40, 8, requires_grad=True) for _ in range(3))
    seen = case.seen()

    def call(q, k, v, seen):
        return attend(q, k, v, seen, engine="split_cpu").square()

    plain = torch.autograd.grad(call(q, k, v, seen).sum(), (q, k, v))
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for other in (compiled(q, k, v, seen), checkpoint(call, q, k, v, seen, use_reentrant=False)):
        for one, again in zip(plain, torch.autograd.grad(other.sum(), (q, k, v)), strict=True):
            assert torch.allclose(one, again, atol=1e-5)


def test_the_gpu_benchmark_runs(tmp_path):
    """At toy size on the CPU, so that it is ready when a GPU is lent."""
    script = ROOT / "benchmarks" / "gpu" / "attention.py"
    out = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, script, "--device", "cpu", "--toy", "--out", out], check=True, capture_output=True
    )
    report = json.loads(out.read_text())
    assert report["parity"]["split_cpu"]["good"] and "refused" in report["parity"]["split_cudnn"]
    assert all(row["split_cpu, forward+backward"]["ms"] > 0 for row in report["rows"])
