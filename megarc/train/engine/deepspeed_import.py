"""DeepSpeed, imported with what it reads at its import set, and without what it would load for nothing."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from megarc.lean_imports import uncollected, without


def import_deepspeed(device: torch.device) -> Any:
    """The module; nothing is connected yet."""
    # It reads these at import and at start, also in a process that no launcher started.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", "0")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Our own optimizer is "untested" to it; docs/parity.md says what was tested.
    logging.getLogger("DeepSpeed").addFilter(lambda line: "untested optimizer" not in line.getMessage())
    # Its calls of torch functions that were renamed: nothing that a user could change.
    warnings.filterwarnings("ignore", r".*torch\.distributed\..* is deprecated", FutureWarning)
    # Once alone: what an engine of this process has left is still to be collected.
    with nullcontext() if "deepspeed" in sys.modules else uncollected():
        return _imported(device)


def _imported(device: torch.device) -> Any:
    import deepspeed
    import deepspeed.ops

    # Only its process group asks which of its extensions could be built: whether that for shared memory on CPUs can.
    # It would be compiled at first use: minutes, and a lock that can hang. Unasked for, the list is made by running
    # the C compiler, in every rank.
    vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    with _uncompiled():
        import deepspeed.runtime.zero.muon.muon_optimizer
    if device.type == "cpu":
        # Its engine imports kernels of experts, which it does not use on a CPU and we not at all; they import Triton.
        with without("triton"):
            import deepspeed.ops.triton_ops
    return deepspeed


@contextmanager
def _uncompiled() -> Iterator[None]:
    """torch.compile leaves functions as they are.

    DeepSpeed's ZeRO optimizers ask whether ours is its Muon, whose functions are decorated with torch.compile: the
    import alone loads the whole of inductor, 3.5 CPU-seconds of every rank, for functions that nobody calls.
    """
    compiled, torch.compile = torch.compile, lambda function=None, **_: function or (lambda same: same)
    try:
        yield
    finally:
        torch.compile = compiled
