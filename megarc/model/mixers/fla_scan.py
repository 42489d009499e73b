"""The recurrence of ``scan`` by the kernels of flash-linear-attention, on CUDA. The package is optional.

Its operator ``simple_gla`` is the same recurrence, with rows before heads: q, k, v [batch, rows, heads, d], decay
[batch, rows, heads].
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from megarc.errors import UserError
from megarc.model.mixers import scan as plain

Kernel = Callable[..., tuple[Tensor, Tensor]]
"""As ``fla.ops.simple_gla.chunk_simple_gla``: named arguments -> what rows read, and the state behind the last."""


def refuse(device: torch.device) -> str | None:
    """Why the kernels cannot serve, or None."""
    if importlib.util.find_spec("fla") is None:
        return "flash-linear-attention is not installed (pip install flash-linear-attention)"
    return None if device.type == "cuda" else f"its kernels need CUDA, and the model is on {device.type}"


def check(device: torch.device) -> None:
    """That the kernels serve.

    Raises:
        UserError: where they cannot.
    """
    if reason := refuse(device):
        raise UserError(
            f"execution.recurrence=fla cannot be used here: {reason}; use execution.recurrence=torch"
        )


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    first: Tensor | None = None,
    state: Tensor | None = None,
    *,
    strict: bool = False,
) -> tuple[Tensor, Tensor]:
    """As ``megarc.model.mixers.scan.scan``, which computes samples with documents, and shapes alone.

    Raises:
        UserError: where the kernels cannot serve.
    """
    if first is not None or q.device.type == "meta" or isinstance(q, FakeTensor):
        return plain.scan(q, k, v, decay, first, state, strict=strict)
    check(q.device)
    from fla.ops.simple_gla import chunk_simple_gla  # type: ignore[import-not-found,unused-ignore]

    return by_kernel(chunk_simple_gla, q, k, v, decay, state, strict=strict)


def by_kernel(
    kernel: Kernel,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    state: Tensor | None = None,
    *,
    strict: bool = False,
) -> tuple[Tensor, Tensor]:
    """The same by a kernel that has no ``strict``: there, a row adds what the row before it would have added.

    With S'_i = exp(decay_i) S_{i-1}, which a strict row reads, S'_i = exp(decay_i) (S'_{i-1} + k_{i-1} v_{i-1}^T).
    """
    keys, values = k, v
    if strict:
        keys = F.pad(k, (0, 0, 1, -1)) * decay.exp()[..., None]
        values = F.pad(v, (0, 0, 1, -1))
    by_row = [x.transpose(1, 2).contiguous() for x in (q, keys, values, decay)]
    read, after = kernel(
        **dict(zip("qkvg", by_row, strict=True)), scale=1.0, initial_state=state, output_final_state=True
    )
    if strict:
        after = after + k[:, :, -1, :, None] * v[:, :, -1, None, :]
    return read.transpose(1, 2), after
