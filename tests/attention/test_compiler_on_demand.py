"""torch's compiler is not imported where nothing is compiled, and is whole where something is."""

import subprocess
import sys

SCRIPT = """
import sys

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import megarc.attention as attention

q = torch.randn(1, 2, 8, 4, requires_grad=True)
adam = torch.optim.AdamW([q], fused=True)


def step():
    adam.zero_grad()
    attention.attend(q, q, q, 3).square().sum().backward()
    adam.step()
    return q.detach().clone()


step()
with FakeTensorMode():
    fake = torch.ones(2, 3, requires_grad=True)
    checkpoint(torch.exp, fake, use_reentrant=False).sum().backward()
torch._dynamo.config.recompile_limit = 123
assert "torch._dynamo.eval_frame" not in sys.modules, "what an eager step needs not, nor a fake one"
stand_in = torch._dynamo
assert type(stand_in).__name__ == "StandIn"
stand_in.trace_rules.clear_lru_cache()


@torch._dynamo.disable(recursive=False)
def kept_out(x):
    return x if torch.compiler.is_compiling() else x + 1


assert kept_out(1) == 2
assert torch._dynamo.is_compiling() is False, "a name that only the real module has"
assert "torch._dynamo.eval_frame" in sys.modules and torch._dynamo is sys.modules["torch._dynamo"] is not stand_in
assert stand_in.config is torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert torch._dynamo.utils.config.recompile_limit == 123, "a setting made before it was there"
assert stand_in.trace_rules.check is torch._dynamo.trace_rules.check

seen = []


def backend(graph, inputs):
    seen.append(graph)
    return graph.forward


whole = torch.compile(lambda x: attention.attend(x, x, x, 3) * 2, backend=backend, fullgraph=True)
with torch.no_grad():
    assert torch.allclose(whole(q), attention.attend(q, q, q, 3) * 2, atol=1e-6)
broken = torch.compile(lambda x: kept_out(x * 2) * 3, backend=backend)
x = torch.ones(2)
assert torch.equal(broken(x), (x * 2 + 1) * 3), "disabled before the compiler was there, and kept from it now"
assert len(seen) == 3, seen
step()
"""


def test_an_eager_step_runs_without_it_and_a_compiled_one_with_all_of_it():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ONCE = """
import sys

import torch

import megarc.attention

assert type(torch._dynamo).__name__ == "StandIn"
from torch._dynamo.exc import TorchDynamoException

assert sys.modules["torch._dynamo.exc"] is torch._dynamo.exc
assert torch._dynamo.exc.__spec__.origin.endswith("exc.py")


def breaks(x):
    print(end="")
    return x + 1


try:
    torch.compile(breaks, fullgraph=True)(torch.zeros(1))
except TorchDynamoException:
    print("caught")
"""


def test_a_submodule_that_is_asked_for_first_is_imported_once():
    """It was imported twice: an exception of the compiler was no TorchDynamoException, and ended the run."""
    done = subprocess.run([sys.executable, "-c", ONCE], capture_output=True, text=True)
    assert done.returncode == 0 and "caught" in done.stdout, done.stderr
