"""Running a block with less memory kept for the backward pass, compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, is_grad_enabled
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from megarc.model import fp8
from megarc.model.compiling import Compiled
from megarc.model.config import ExecutionConfig, Recompute
from megarc.model.mixers import fla_scan
from megarc.model.mixers.scan import Scan, scan

Body = Callable[..., Tensor]
"""A block's ``(x, seen, cache, positions, kept)`` -> x."""


def keep_all(body: Body, *inputs: Any) -> Tensor:
    """``body(*inputs)``; everything that its backward pass wants is kept."""
    return body(*inputs)


def keep_input(body: Body, *inputs: Any) -> Tensor:
    """The same; the inputs are kept and the rest is computed again."""
    return checkpoint(body, *inputs, use_reentrant=False) if is_grad_enabled() else body(*inputs)


def keep_the_costly(body: Body, *inputs: Any) -> Tensor:
    """The same; matrix products and attention are kept.

    Norms, rotations, activations are computed again, which costs little and is most of
    the memory (Korthikanti et al. 2022, 2205.05198; the scores that they leave out no
    fused attention ever keeps).
    """
    if not is_grad_enabled():
        return body(*inputs)
    return checkpoint(body, *inputs, use_reentrant=False, context_fn=_contexts)


_WAYS: dict[Recompute, Callable[..., Tensor]] = {
    "none": keep_all,
    "selective": keep_the_costly,
    "full": keep_input,
}


class Runner:
    """How the blocks of one model run: what of each is computed again, compiled or not."""

    def __init__(self, execution: ExecutionConfig) -> None:
        self.recompute, self.every = execution.recompute, execution.recompute_every
        self.linear = fp8.linear_with(execution.fp8_scales) if execution.fp8 else F.linear
        self.scan: Scan = fla_scan.scan if execution.recurrence == "fla" else scan
        self.compiles = execution.compile
        self._compiled: dict[tuple[Recompute, str], Compiled] = {}

    def way(self, layer: int, kind: str) -> Callable[..., Tensor]:
        """Of block ``layer``: every ``every``-th one, from the first on, is computed again.

        Args:
            kind: blocks of one kind differ in their weights alone, and one compiled function serves all of them.
        """
        name = self.recompute if layer % self.every == 0 else "none"
        if not self.compiles:
            return _WAYS[name]
        if (name, kind) not in self._compiled:
            # What is computed again is decided inside, where the compiler sees it.
            self._compiled[name, kind] = Compiled(_WAYS[name], f"a block of {kind}")
        return self._compiled[name, kind]


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_keep_the_costly)


def _keep_the_costly(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Of one operator: matrix products, and attention of any engine."""
    return CheckpointPolicy.MUST_SAVE if is_costly(operator) else CheckpointPolicy.PREFER_RECOMPUTE


def is_costly(operator: Any) -> bool:
    """Whether ``selective`` keeps what the operator gives."""
    name = f"{operator.namespace}.{operator._opname}" if hasattr(operator, "namespace") else str(operator)
    return (
        name in ("aten.mm", "aten.addmm", "aten.bmm", "aten._scaled_mm")
        or "attention" in name
        or name.startswith("megarc.")
    )
