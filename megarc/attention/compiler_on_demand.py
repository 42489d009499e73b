"""torch's compiler is imported when something is compiled, not when something asks not to be.

``torch._dynamo`` takes two CPU-seconds to import, and torch imports it in every program: an optimizer's methods, and a
custom operator at its first call, are wrapped in ``torch._dynamo.disable``. Where nothing is compiled that wrapper
does nothing. Fake tensors and recomputation read its settings, ``torch._dynamo.config``, a file that imports nothing
large. So a module stands in for it that knows these few names; for any other it imports the real one, which takes its
place and keeps the settings.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch

NAME = "torch._dynamo"
SETTINGS = f"{NAME}.config"


def import_compiler_on_demand() -> None:
    """Puts the stand-in where the real module is not yet imported."""
    if NAME not in sys.modules:
        sys.modules[NAME] = torch._dynamo = StandIn()
        sys.meta_path.insert(0, _AlreadyImported())


class StandIn(ModuleType):
    """Of ``torch._dynamo``, until more is asked of it than not to compile."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self._lock = threading.RLock()
        self._real: Any = None
        self.trace_rules = TraceRules(self)
        if (settings := _settings()) is not None:
            self.config = settings

    def __getattr__(self, name: str) -> Any:
        # By __path__ its submodules are found; inspect asks every module for other such names.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        return getattr(self.load(), name)

    def load(self) -> Any:
        with self._lock:
            if self._real is None:
                if sys.modules.get(NAME) is self:
                    del sys.modules[NAME]
                self._real = importlib.import_module(NAME)
                if settings := sys.modules.get(SETTINGS):
                    # Python sets a submodule on its package only where it imports it.
                    self._real.config = settings
            return self._real

    def graph_break(self, *_: Any, **__: Any) -> None:
        """Outside of what is compiled there is nothing to break, there as here."""

    def disable(self, function: Any = None, recursive: bool = True, **how: Any) -> Any:
        """``function``; from the moment at which the compiler is there, kept from it."""
        if function is None:
            return functools.partial(self.disable, recursive=recursive, **how)
        if not isinstance(function, FunctionType):
            return self.load().disable(function, recursive, **how)
        disabled: Callable[..., Any] | None = None

        @functools.wraps(function)
        def call(*arguments: Any, **keys: Any) -> Any:
            nonlocal disabled
            if self._real is None:
                return function(*arguments, **keys)
            if disabled is None:
                disabled = self._real.disable(function, recursive, **how)
            return disabled(*arguments, **keys)

        return call


class _AlreadyImported(MetaPathFinder, Loader):
    """Finds a submodule where it was imported while Python looked for it.

    Python asks the stand-in for ``__path__`` to find, say, ``torch._dynamo.exc``. That imports the real package with
    this submodule. Python would import it once more, and its exceptions would be other classes than those raised.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if target is not None or not fullname.startswith(f"{NAME}.") or fullname not in sys.modules:
            return None
        return ModuleSpec(fullname, self, loader_state=sys.modules[fullname].__spec__)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # its own, which Python has replaced


def _settings() -> ModuleType | None:
    """``torch._dynamo.config`` without its package; None where torch has no such file."""
    if SETTINGS not in sys.modules:
        path = Path(torch.__file__).parent / "_dynamo" / "config.py"
        spec = importlib.util.spec_from_file_location(SETTINGS, path) if path.is_file() else None
        if spec is None or spec.loader is None:
            return None
        module = sys.modules[SETTINGS] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[SETTINGS]


class TraceRules:
    """Its ``trace_rules``, whose caches a new process group clears."""

    def __init__(self, owner: StandIn) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._owner.load().trace_rules, name)

    def clear_lru_cache(self) -> None:
        if self._owner._real is not None:
            self._owner._real.trace_rules.clear_lru_cache()
