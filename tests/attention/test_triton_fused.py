"""The fused kernels and the CUDA engines, as far as a CPU can see: the interpreter, meta tensors, refusals."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megarc.attention import ENGINES, attend, column_split, resolve, row_split, split_cudnn, split_flash
from megarc.attention.attention_call import Inputs, Outputs
from megarc.attention.mask import Mask
from megarc.attention.parity import CASES, TOLERANCE, Case, worst
from megarc.errors import UserError


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_small_tiles_bits_and_merge_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).with_name("interpreted.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["small_tiles"] < 1e-5
    assert found["some_rows"] < 1e-5
    assert found["deterministic"]
    assert found["merged"] < 1e-6


@pytest.mark.parametrize(
    ("flash", "split"), [(split_cudnn.CudnnFlash(), column_split), (split_flash.TorchFlash(), row_split)]
)
@pytest.mark.parametrize("recent", [0, 7, 20])
def test_torchs_operators_take_what_the_splits_hand_them(flash, split, recent):
    """On meta tensors: argument types and shapes. What they compute is for a GPU to show."""
    q = torch.empty(2, 16, 20, 64, dtype=torch.bfloat16, device="meta")
    k = torch.empty(2, 4, 20, 64, dtype=torch.bfloat16, device="meta")
    call = Inputs(q, k, k, 0.1)
    out, lse = split.forward(flash, call, recent)
    assert out.shape == q.shape and lse.shape == q.shape[:3] and lse.dtype == torch.float32
    grads = split.backward(flash, call, Outputs(q, out, lse), recent)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, k.shape]


@pytest.mark.parametrize("engine", ["split_cudnn", "split_flash", "triton"])
@pytest.mark.parametrize(
    ("dtype", "head_dim", "said"),
    [
        (torch.float32, 64, "bfloat16 and float16"),
        (torch.bfloat16, 264, "head_dim"),
        (torch.float64, 64, "float64"),
    ],
)
def test_what_a_cuda_engine_does_not_take(engine, dtype, head_dim, said):
    with pytest.raises(UserError, match=said):
        resolve(engine, "cuda", dtype, head_dim)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_auto_without_the_gpu_that_was_named():
    assert resolve("auto", "cuda", torch.bfloat16, 64) == "reference"


@pytest.mark.parametrize(
    "engine", ["split_cudnn", "split_flash", "triton", "flex", "cudnn_frontend", "flash4"]
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity_on_a_gpu(engine, case):
    reason = ENGINES[engine].refuse(torch.device("cuda"), torch.bfloat16, case.head_dim)
    if reason is not None:
        pytest.skip(f"{engine}: {reason}")
    assert worst(engine, case, torch.bfloat16, "cuda") <= TOLERANCE[torch.bfloat16]


@pytest.mark.skipif(
    importlib.util.find_spec("cudnn") is None, reason="nvidia-cudnn-frontend is not installed"
)
@pytest.mark.parametrize("causal", [False, True])
def test_the_frontend_finds_our_graphs_valid(causal, monkeypatch):
    """Its own checks of shapes, strides and attributes, which need no GPU."""
    from megarc.attention import cudnn_frontend

    monkeypatch.setattr(cudnn_frontend, "_handle", lambda device: None)
    monkeypatch.setattr(cudnn_frontend, "_build", lambda graph: graph.validate())
    layout = ((2, 8, 40, 64), (20480, 64, 512, 1), torch.bfloat16)
    keys = ((2, 2, 70, 64), (8960, 4480, 64, 1), torch.bfloat16)
    lse = ((2, 8, 40, 1), (320, 40, 1, 1), torch.float32)
    device = torch.device("cpu")
    cudnn_frontend.forward_graph((layout, keys, keys, layout, lse), causal, 0.1, device)
    inputs = (layout, keys, keys, layout, layout, lse)
    cudnn_frontend.backward_graph((*inputs, layout, keys, keys), causal, 0.1, device)


@pytest.mark.parametrize("engine", ["reference", "split_cpu"])
@pytest.mark.parametrize(
    "case", [Case(11, 5), Case(11, 0, documents=((7, 5), (1, 0), (3, 3))), Case(11, 4, sliding=3)], ids=str
)
def test_a_key_reaches_exactly_the_rows_that_may_see_it(engine, case):
    (q, k, v, _), seen = case.inputs(torch.float64, "cpu")
    allowed = Mask.of(seen).dense(case.rows, device=torch.device("cpu"))
    before = attend(q, k, v, seen, engine=engine)
    for key in range(case.rows):
        other_k, other_v = k.clone(), v.clone()
        other_k[:, :, key] += 1.0
        other_v[:, :, key] += 1.0
        after = attend(q, other_k, other_v, seen, engine=engine)
        changed = (after != before).any(dim=-1).any(dim=1)
        assert torch.equal(changed, allowed[:, :, key].expand_as(changed))


@pytest.mark.parametrize("engine", ["reference", "split_cpu"])
@pytest.mark.parametrize("recent", [4, (4, 9)])
def test_last_strides_other_than_one(engine, recent):
    """Of the inputs, and of the gradient: that of a sum has strides of 0."""
    torch.manual_seed(0)
    odd = [torch.randn(2, 3, 8, 13).transpose(2, 3).requires_grad_() for _ in range(3)]
    even = [tensor.detach().contiguous().requires_grad_() for tensor in odd]
    seen = Case(13, recent).seen()
    for one, other in zip(
        torch.autograd.grad(attend(*odd, seen, engine=engine).sum(), odd),
        torch.autograd.grad(attend(*even, seen, engine="reference").sum(), even),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(
        attend(*odd, seen, engine=engine), attend(*even, seen, engine="reference"), atol=1e-6
    )


def test_empty_sets_of_keys_merge_to_nothing():
    out, lse = torch.zeros(1, 1, 3, 2), torch.tensor([[[-torch.inf, -torch.inf, 0.5]]])
    other, other_lse = torch.ones(1, 1, 3, 2), torch.tensor([[[-torch.inf, 1.0, -torch.inf]]])
    column_split.merge_(out, lse, other, other_lse)
    assert torch.equal(out[0, 0, :, 0], torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(lse[0, 0], torch.tensor([-torch.inf, 1.0, 0.5]))
