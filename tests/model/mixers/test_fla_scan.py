"""What flash-linear-attention's kernel is given and gives, with a stand-in of its layout; the refusal without it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from support.mixers import row_by_row
from support.processes import run

from megarc.errors import UserError
from megarc.model import ExecutionConfig, ModelConfig, Transformer, initialise
from megarc.model.mixers import fla_scan

ROOT = Path(__file__).parents[3]


def stand_in(q, k, v, g, scale, initial_state, output_final_state):
    """As ``chunk_simple_gla``: rows before heads."""
    assert output_final_state and all(x.is_contiguous() for x in (q, k, v, g))
    q, k, v, g = (x.transpose(1, 2) for x in (q, k, v, g))
    read, state = row_by_row(q * scale, k, v, g, state=initial_state)
    return read.transpose(1, 2), state


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_equals_the_recurrence_row_by_row(strict, begun):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    decay = (-torch.rand(2, 3, 7, dtype=torch.float64)).requires_grad_()
    state = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True) if begun else None
    given = [q, k, v, decay, *([state] if begun else [])]
    found = fla_scan.by_kernel(stand_in, q, k, v, decay, state, strict=strict)
    expected = row_by_row(q, k, v, decay, state=state, strict=strict)
    weights = [torch.randn_like(x) for x in expected]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    gradients = [
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(pair, weights, strict=True)), given)
        for pair in (found, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mixers", ["ssm", "ssm_attention"])
def test_a_model_runs_its_scans_by_it(mixers, monkeypatch):
    """The stand-in serves in place of the package: the same numbers, and it was called."""
    called = []

    def scan(q, k, v, decay, first=None, state=None, *, strict=False):
        called.append(strict)
        return fla_scan.by_kernel(stand_in, q, k, v, decay, state, strict=strict)

    tokens, config = (
        torch.arange(2 * 11).view(2, 11),
        ModelConfig(layers=1, hidden=32, mixers=mixers, vocabulary=64),
    )

    def logits(recurrence):
        model = Transformer(config, ExecutionConfig(recurrence=recurrence)).double()
        initialise(model, config, 0)
        return model.hidden(tokens, 6)

    with pytest.raises(UserError, match=r"execution\.recurrence=fla cannot be used here"):
        logits("fla")
    expected = logits("torch")
    monkeypatch.setattr(fla_scan, "scan", scan)
    torch.testing.assert_close(logits("fla"), expected)
    assert sorted(called) == [False, True]


def test_the_gpu_benchmark_runs(tmp_path):
    """At toy size on the CPU, with a stand-in for the kernel, so that it is ready when a GPU is lent."""
    script, out = ROOT / "benchmarks" / "gpu" / "mixers.py", tmp_path / "found.json"
    words = ["--device", "cpu", "--toy", "--out", out]
    run([sys.executable, script, *words], check=True, capture_output=True)
    report = json.loads(out.read_text())
    assert all(one["good"] and one["fla"] < 1e-5 for one in report["parity"])
    assert all(
        block[name]["ms"] > 0 for block in report["blocks"] for name in ("attention", "ssm by fla", "crf")
    )
