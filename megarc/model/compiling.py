"""torch.compile where it can be had: what cannot be compiled says so once and runs as it is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.config

from megarc.errors import shortened

_log = logging.getLogger("megarc")
_VERSIONS = 64
"""Of one function, for other mixers, windows and gradient modes; torch's own limit is 8."""


def no_compiler(device: torch.device) -> str | None:
    """Why nothing can be compiled for ``device`` on this machine, or None."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            return "torch finds no Triton for this GPU; pip install triton"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    try:
        compiler = get_cpp_compiler()
    except InvalidCxxCompiler:
        compiler = None
    if compiler is None or shutil.which(compiler) is None:
        return "there is no C++ compiler; install g++ or clang, or name one in CXX"
    # torch does not quote it in the compiler's command: findings/inductor-cache-with-a-space.sh.
    if device.type == "cpu" and any(character.isspace() for character in cache_dir()):
        return (
            f"torch compiles nothing in a cache folder whose path has a space, '{cache_dir()}'; name another in "
            "TORCHINDUCTOR_CACHE_DIR"
        )
    return None


class Compiled:
    """``function``, compiled whole (no graph break) at its first call, its backward pass with it.

    Where that fails the log says why, once, and from then on the function runs
    as it is: slower, the same numbers. Left to itself torch compiles a backward pass when
    it first runs; a failure there comes too late, in the middle of a step.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function, self.name = function, name
        self._best: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        from torch._dynamo import config  # late: see compiler_on_demand.py
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        if self._best is None:
            # Not before: a model may be built while DeepSpeed has functions of torch replaced (ZeRO 3).
            self._best = torch.compile(self.function, fullgraph=True)
        try:
            with (
                torch._functorch.config.patch(force_non_lazy_backward_lowering=True),
                config.patch(recompile_limit=_VERSIONS),
            ):
                return self._best(*arguments)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            # Raised while it compiles, so before anything has run.
            self._best = self.function
            reason = _reason(error)
            _log.warning("%s is not compiled and runs eagerly: %s", self.name, shortened(reason, 300))
            return self.function(*arguments)


def _reason(error: Exception) -> str:
    from torch._dynamo.exc import FailOnRecompileLimitHit

    if isinstance(error, FailOnRecompileLimitHit):
        return f"{_VERSIONS} versions of it are compiled already, and other sizes or windows need one more"
    # The first line names the backend, the second what it met.
    return " ".join(str(error).split("\n", 2)[:2]).strip() or type(error).__name__
