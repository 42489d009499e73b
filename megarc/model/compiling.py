"""torch.compile where it can be had: what cannot be compiled says so once and runs as it is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

_log = logging.getLogger("megarc")


def no_compiler(device: torch.device) -> str | None:
    """Why nothing can be compiled for ``device`` on this machine, or None."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            return "torch finds no Triton for this GPU; pip install triton"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        compiler = get_cpp_compiler()
    except InvalidCxxCompiler:
        compiler = None
    if compiler is None or shutil.which(compiler) is None:
        return "there is no C++ compiler; install g++ or clang, or name one in CXX"
    return None


class Compiled:
    """``function``, compiled whole (no graph break) at its first call.

    Where that fails the log says why, once, and from then on the function runs
    as it is: slower, the same numbers.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function, self.name = function, name
        self._best: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._best is None:
            # Not before: a model may be built while DeepSpeed has functions of torch replaced (ZeRO 3).
            self._best = torch.compile(self.function, fullgraph=True)
        try:
            return self._best(*arguments)
        except TorchDynamoException as error:
            # Raised while it compiles, so before anything has run.
            self._best = self.function
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            _log.warning("%s is not compiled and runs eagerly: %s", self.name, reason)
            return self.function(*arguments)
