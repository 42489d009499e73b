"""DeepSpeed, imported with what it reads at its import set, and without what it would load for nothing."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import torch


def import_deepspeed(device: torch.device) -> Any:
    """The module; nothing is connected yet."""
    # It reads these at import and at start, also in a process that no launcher started.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", "0")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Its calls of torch functions that were renamed: nothing that a user could change.
    warnings.filterwarnings("ignore", r".*torch\.distributed\..* is deprecated", FutureWarning)
    import deepspeed
    import deepspeed.ops

    if device.type == "cpu":
        # Its shared-memory extension would be compiled at first use: minutes, and a lock that can hang.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    _import_muon_uncompiled()
    return deepspeed


def _import_muon_uncompiled() -> None:
    """Imports DeepSpeed's Muon without a compiler; its ZeRO optimizers ask whether ours is one.

    Its functions are decorated with torch.compile, so that the import alone loads the whole of inductor: 3.5
    CPU-seconds of every rank, for functions that nobody calls.
    """
    compiled, torch.compile = torch.compile, lambda function=None, **_: function or (lambda same: same)
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        torch.compile = compiled
