"""Symbolic sizes and sympy are not imported for shapes that are numbers; the stand-ins answer as the real ones do, and
are gone when the pass has ended."""

import subprocess
import sys

SCRIPT = """
import sys
from contextlib import ExitStack

import torch

from megarc.model import ExecutionConfig, ModelConfig, footprint
from megarc.model.plain_sizes import ANSWERS, FUNCTIONS, NAME, plain_sizes
from megarc.parallel import Group, TensorParallel
from megarc.window import Window

shape = ModelConfig(layers=2, hidden=64, heads=4, vocabulary=300, tied=False)
for recompute in ("none", "selective", "full"):
    place = TensorParallel(Group(0, 2), True)
    way = ExecutionConfig(recompute=recompute)
    assert footprint(shape, way, Window(16, 16, 16), 2, torch.bfloat16, torch.device("cpu"), place).kept
left = {NAME, "sympy", FUNCTIONS} & set(sys.modules)
assert not left and not hasattr(torch.fx.experimental, "symbolic_shapes"), f"what a pass leaves behind: {left}"

scope = ExitStack()
scope.enter_context(plain_sizes())
stand_in = sys.modules[NAME]
assert type(stand_in).__name__ == "Sizes" and "sympy.core" not in sys.modules, "what shapes of numbers need not"
shaped = torch.empty(2, 3, device="meta")
given = {"sym_and": [(True, False), (True,)], "sym_or": [(True, False), (False, False)],
         "sym_eq": [([1, 2], (1, 2)), ([1], [2]), ([1], [1, 2]), (3, 3)],
         "compute_unbacked_bindings": [(None, shaped)], "guard_int": [(3,)], "guarding_hint_or_throw": [(3,), (True,)],
         "optimization_hint": [(7,)], "has_guarding_hint": [(3,)], "is_nested_int": [(3,)],
         **dict.fromkeys(("has_free_symbols", "has_free_unbacked_symbols", "free_unbacked_symbols", "_iterate_exprs",
                          "_iterate_nodes"), [(shaped,), ([3, True],)])}
told = {name: [getattr(stand_in, name)(*each) for each in given.get(name, [(True,), (False,)])] for name in ANSWERS}
sympy = sys.modules["sympy"]
assert stand_in.ShapeEnv, "a name that only the real module has"
assert sympy.Basic is sys.modules["sympy"].Basic and sympy is not sys.modules["sympy"], "as kept by who imported it"
real = sys.modules[NAME]
assert sys.modules[FUNCTIONS].Max is not max, "the real ones come together"
assert real is not stand_in and "sympy.core" in sys.modules
for name, answers in told.items():
    for each, answer in zip(given.get(name, [(True,), (False,)]), answers, strict=True):
        found = getattr(real, name)(*each)
        assert (list(found) == list(answer)) if hasattr(found, "__iter__") else found == answer, (name, each)
environment = real.ShapeEnv()
symbol = environment.create_unbacked_symint()
assert stand_in.has_free_unbacked_symbols(symbol) is True, "what is symbolic goes to the real module"
scope.close()
assert sys.modules[NAME] is real is torch.fx.experimental.symbolic_shapes, "the real ones stay"
twice = torch.compile(lambda x: (x * x.shape[0]).sum(), dynamic=True, backend="aot_eager")
assert [twice(torch.ones(rows)).item() for rows in (3, 5)] == [9, 25]
print("whole")
"""


def test_they_come_when_a_size_is_symbolic():
    """In a process of its own, that nothing else has loaded them into."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0 and ran.stdout.endswith("whole\n"), ran.stderr
