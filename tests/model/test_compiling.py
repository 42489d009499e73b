"""What cannot be compiled runs as it is, its backward pass too."""

import logging

import pytest
import torch
import torch._inductor.compile_fx as compile_fx
from support.compilers import TRACED, compiling_with

from megarc.model import compiling
from megarc.model.compiling import Compiled, no_compiler


def function(x):
    return (x.sin() * x).sum()


@pytest.mark.skipif(no_compiler(torch.device("cpu")) is not None, reason="there is no compiler")
@pytest.mark.parametrize("part", ["compile_fx_backward", "compile_fx_forward"])
def test_a_pass_that_cannot_be_compiled_runs_eagerly(monkeypatch, caplog, part):
    def fails(*args, **keys):
        raise RuntimeError("g++ ended by signal 15; " + "its output " * 30_000)

    torch._dynamo.reset()
    monkeypatch.setattr(compile_fx, part, fails)
    compiled = Compiled(function, "the block")
    x = torch.linspace(0, 1, 7, requires_grad=True)
    with caplog.at_level(logging.WARNING, "megarc"):
        for _ in range(2):
            x.grad = None
            loss = compiled(x)
            loss.backward()
    assert torch.equal(loss, function(x))
    assert torch.allclose(x.grad, x.detach().cos() * x.detach() + x.detach().sin())
    said = [record.getMessage() for record in caplog.records if "runs eagerly" in record.getMessage()]
    assert len(said) == 1 and "signal 15" in said[0] and len(said[0]) < 500
    torch._dynamo.reset()


def test_more_versions_than_torch_keeps_are_compiled_and_beyond_ours_it_runs_eagerly(monkeypatch, caplog):
    """The ninth version of a block, for another window or another mixer's layer, ended the run."""
    x = torch.ones(2)
    with compiling_with(TRACED), caplog.at_level(logging.WARNING, "megarc"):
        compiled = Compiled(lambda x, word: x * len(word), "the block")
        assert [compiled(x, "a" * size).tolist() for size in range(1, 11)] == [[n, n] for n in range(1, 11)]
        assert not [record for record in caplog.records if record.name == "megarc"]
        monkeypatch.setattr(compiling, "_VERSIONS", 10)
        assert [compiled(x, "a" * size).tolist() for size in (11, 12)] == [[11, 11], [12, 12]]
    (record,) = (record for record in caplog.records if record.name == "megarc")
    assert "runs eagerly: 10 versions of it are compiled already" in record.getMessage()


@pytest.mark.skipif(no_compiler(torch.device("cpu")) is not None, reason="there is no compiler")
def test_a_cache_folder_with_a_space_is_said_before_anything_is_compiled(monkeypatch, tmp_path):
    """torch does not quote it: the compiler ended with an error, and the log did not say why."""
    (tmp_path / "two words").mkdir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "two words"))
    assert "TORCHINDUCTOR_CACHE_DIR" in no_compiler(torch.device("cpu"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert no_compiler(torch.device("cpu")) is None
