"""torch's symbolic sizes, and sympy with them, are imported when a size is symbolic: .7 CPU-seconds.

Shapes without values ask ``torch.fx.experimental.symbolic_shapes`` about each size, mostly whether a comparison holds,
and whether it is a number of sympy's. Where no size is symbolic, the answers are plain. So, while a pass runs, modules
stand in for the real ones and answer for plain numbers. Asked for more, or about something else, they import the real
ones, which take their places. They are gone when the pass has ended: torch's compiler, which comes later, must find
the real ones.
"""

from __future__ import annotations

import functools
import importlib
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor

NAME = "torch.fx.experimental.symbolic_shapes"
FUNCTIONS = "torch.utils._sympy.functions"
_PLAIN = (int, float, bool, str, type(None))


@contextmanager
def plain_sizes() -> Iterator[None]:
    """Stand-ins where the real modules are not yet imported; afterwards, as if they had never been."""
    if NAME in sys.modules or "sympy" in sys.modules:
        yield
        return
    import torch.fx.experimental as package

    stand_ins: dict[str, StandIn] = {
        NAME: Sizes(NAME), "sympy": Sympy("sympy"), FUNCTIONS: Functions(FUNCTIONS)
    }  # fmt: skip
    sys.modules.update(stand_ins)
    package.symbolic_shapes = stand_ins[NAME]
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
        # Where it was asked for more, the real one has taken its place.
        if package.__dict__.get("symbolic_shapes") is stand_ins[NAME]:
            del package.symbolic_shapes


class StandIn(ModuleType):
    """Of a module, until more is asked of it than it knows."""

    package = False

    def __getattr__(self, name: str) -> Any:
        # By a package's __path__ its submodules are found; inspect asks every module for other such names.
        if name.startswith("__") and not (self.package and name == "__path__"):
            raise AttributeError(name)
        return getattr(self.load(), name)

    def load(self) -> ModuleType:
        """The real one. All others come with it: what is imported from now on must not meet a stand-in."""
        present = [sys.modules[name] for name in (NAME, "sympy", FUNCTIONS) if name in sys.modules]
        stand_ins = [module for module in present if isinstance(module, StandIn)]
        for stand_in in stand_ins:
            del sys.modules[stand_in.__name__]
        for stand_in in stand_ins:
            # Who imported the stand-in has it still, and finds the real one's names in it.
            stand_in.__dict__.update(importlib.import_module(stand_in.__name__).__dict__)
        return importlib.import_module(self.__name__)


class Sympy(StandIn):
    """Of sympy, in which no value is a ``Basic``."""

    package = True
    Basic = type("Basic", (), {})


class Functions(StandIn):
    """Of functions of symbols; of numbers, they are Python's."""

    Max = staticmethod(max)


class Sizes(StandIn):
    """Of the symbolic sizes."""

    # Only the real module raises it.
    GuardOnDataDependentSymNode = type("GuardOnDataDependentSymNode", (RuntimeError,), {})

    def __init__(self, name: str) -> None:
        super().__init__(name)
        for function, answer in ANSWERS.items():
            setattr(self, function, self._plainly(function, answer))

    def _plainly(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keys: Any) -> Any:
            if keys or not all(map(is_plain, arguments)):
                return getattr(self.load(), name)(*arguments, **keys)
            return answer(*arguments)

        return call


def is_plain(value: Any) -> bool:
    """Whether nothing in it is symbolic."""
    if isinstance(value, _PLAIN):
        return True
    if isinstance(value, (tuple, list)):
        return all(map(is_plain, value))
    return isinstance(value, Tensor) and all(type(size) is int for size in value.shape)


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, (tuple, list)) and isinstance(y, (tuple, list)):
        return len(x) == len(y) and all(map(_equal, x, y))
    return bool(x == y)


def _itself(value: Any) -> Any:
    return value


ANSWERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("guard_or_true", "guard_or_false"), bool),
    **dict.fromkeys(("guard_size_oblivious", "statically_known_true", "expect_true", "guard_int"), _itself),
    **dict.fromkeys(("guarding_hint_or_throw", "optimization_hint"), _itself),
    "has_guarding_hint": lambda value: True,
    **dict.fromkeys(("is_nested_int", "has_free_symbols", "has_free_unbacked_symbols"), lambda value: False),
    "sym_and": lambda *values: functools.reduce(operator.and_, values),
    "sym_or": lambda *values: functools.reduce(operator.or_, values),
    "sym_eq": _equal,
    # Of what has no symbols; the first argument is the ShapeEnv, None where all is plain.
    "compute_unbacked_bindings": lambda environment, *values: None,
    **dict.fromkeys(("free_unbacked_symbols", "_iterate_exprs", "_iterate_nodes"), lambda value: ()),
}
"""What the real functions answer for plain numbers and tensors of plain sizes."""
