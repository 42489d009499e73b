"""Running a block with less memory kept for the backward pass."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["none", "selective", "full"]


def run_block(
    block: nn.Module,
    x: Tensor,
    recent: int | Tensor,
    documents: Tensor | None,
    recompute: Recompute,
    positions: Tensor | None = None,
) -> Tensor:
    """``block(x, recent, documents, None, positions)``; what is kept of it decides ``recompute``.

    none: all. selective: matrix products and attention; norms, rotations,
    activations are computed again, which costs little and is most of the memory
    (Korthikanti et al. 2022, 2205.05198). full: the input alone.
    """
    if recompute == "none" or not torch.is_grad_enabled():
        return block(x, recent, documents, None, positions)
    if recompute == "full":
        return checkpoint(block, x, recent, documents, None, positions, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _keep_the_costly)
    return checkpoint(block, x, recent, documents, None, positions, use_reentrant=False, context_fn=contexts)


def _keep_the_costly(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Of one operator: matrix products, and attention of any engine."""
    return CheckpointPolicy.MUST_SAVE if is_costly(operator) else CheckpointPolicy.PREFER_RECOMPUTE


def is_costly(operator: Any) -> bool:
    """Whether ``selective`` keeps what the operator gives."""
    name = f"{operator.namespace}.{operator._opname}" if hasattr(operator, "namespace") else str(operator)
    return name in ("aten.mm", "aten.addmm", "aten.bmm") or "attention" in name or name.startswith("megarc.")
