"""The door of the room: checks what comes in, chooses an engine, calls it."""

from __future__ import annotations

import logging
import math
from types import ModuleType

import torch
from torch import Tensor

from megarc.attention import (
    cudnn_frontend,
    flash4,
    flex,
    reference,
    split_cpu,
    split_cudnn,
    split_flash,
    triton_fused,
)
from megarc.attention.attention_call import Inputs
from megarc.attention.mask import Mask
from megarc.errors import UserError
from megarc.interval import Intervals, Seen

_AUTO: tuple[ModuleType, ...] = (split_cpu, split_cudnn, split_flash, triton_fused, flex, reference)
"""The order in which ``auto`` tries: by published speeds until benchmarks/gpu/attention.py has run."""
_BY_NAME: tuple[ModuleType, ...] = (cudnn_frontend, flash4)
ENGINES: dict[str, ModuleType] = {module.NAME: module for module in (*_AUTO, *_BY_NAME)}
"""Every engine by name. An engine is a module with ``NAME``,
``refuse(device, dtype, head_dim) -> reason | None`` and ``attend``; and ``FEWER_ROWS``, true, where it takes
fewer rows than keys."""

_log = logging.getLogger(__name__)


def attend(
    q: Tensor, k: Tensor, v: Tensor, seen: Seen, *, scale: float | None = None, engine: str = "auto"
) -> Tensor:
    """[R | C] attention.

    Args:
        q: ``[batch, heads, rows, head_dim]``, any strides. With intervals they may be some rows of a window
            (``parallel.context``), in their order.
        k: ``[batch, kv_heads, keys, head_dim]``, of all rows; ``kv_heads`` divides ``heads``, and query head
            h reads key head ``h // (heads / kv_heads)``.
        v: as ``k``.
        seen: rows of R of a plain window, 0 (causal) to rows: row q sees row k where
            ``k < seen or k <= q``. Or an interval of keys for each row (``megarc.interval``), as
            int32 tensors ``[batch, rows]`` on q's device. Their values are checked on the CPU.
        scale: what multiplies q.k; ``1 / sqrt(head_dim)`` unless given.
        engine: a name of ``ENGINES``, or ``auto``.

    Returns:
        ``[batch, heads, rows, head_dim]``, of q's dtype.

    Raises:
        UserError: for shapes, dtypes or devices that disagree, rows of R out of range, intervals
            that are none, an engine that cannot serve.
    """
    fewer = isinstance(seen, Intervals) and q.dim() == k.dim() == 4 and q.shape[2] < k.shape[2]
    _check_tensors(q, k, v, fewer)
    _check_seen(q, k.shape[2], seen)
    name, _ = _choose(engine, q.device, q.dtype, q.shape[-1], fewer)
    call = Inputs(q, k, v, 1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    out: Tensor = ENGINES[name].attend(call, Mask.of(seen))
    return out


def resolve(
    engine: str, device: torch.device | str, dtype: torch.dtype, head_dim: int, fewer_rows: bool = False
) -> str:
    """The engine that ``attend`` would take, and a line in the log that says why.

    Args:
        fewer_rows: whether rows are some of a window's.

    Raises:
        UserError: where ``engine`` is none, or cannot serve.
    """
    name, why = _choose(engine, torch.device(device), dtype, head_dim, fewer_rows)
    _log.info("attention engine: %s (%s)", name, why)
    return name


def _choose(
    engine: str, device: torch.device, dtype: torch.dtype, head_dim: int, fewer: bool
) -> tuple[str, str]:
    if device.type == "meta":  # shapes alone, of what a CPU would compute (megarc.model.activation_memory)
        device = torch.device("cpu")
    if engine != "auto":
        if engine not in ENGINES:
            raise UserError(f"no attention engine '{engine}'; there are auto, {', '.join(ENGINES)}")
        reason = _refuse(ENGINES[engine], device, dtype, head_dim, fewer)
        if reason is not None:
            raise UserError(f"attention engine '{engine}' cannot be used here: {reason}; use engine: auto")
        return engine, "asked for"
    passed: list[str] = []
    for module in _AUTO:
        name, reason = module.NAME, _refuse(module, device, dtype, head_dim, fewer)
        if reason is None:
            skipped = f"; not {', not '.join(passed)}" if passed else ""
            return name, f"the first that supports {dtype} of head_dim {head_dim} on {device}{skipped}"
        passed.append(f"{name}: {reason}")
    raise UserError("no attention engine can be used here: " + "; ".join(passed))


def _refuse(
    module: ModuleType, device: torch.device, dtype: torch.dtype, head_dim: int, fewer: bool
) -> str | None:
    if fewer and not getattr(module, "FEWER_ROWS", False):
        return "it takes no fewer rows than keys (parallel.context)"
    reason: str | None = module.refuse(device, dtype, head_dim)
    return reason


# ---- what may come in


def _check_tensors(q: Tensor, k: Tensor, v: Tensor, fewer: bool) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 4:
        raise UserError(f"attention takes [batch, heads, rows, head_dim] tensors; given {shapes}")
    shared = slice(3, None) if fewer else slice(2, None)
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[shared] != k.shape[shared]:
        raise UserError(
            f"attention: batch, rows and head_dim must agree, k and v in heads too; given {shapes}"
        )
    if 0 in q.shape or k.shape[1] == 0:
        raise UserError(f"attention: no dimension may be empty; given {shapes}")
    if q.shape[1] % k.shape[1] != 0:
        raise UserError(f"attention: the key heads must divide the query heads; given {shapes}")
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise UserError(
            f"attention: one floating dtype for q, k and v; given {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if not q.device == k.device == v.device:
        raise UserError(f"attention: one device for q, k and v; given {q.device}, {k.device}, {v.device}")


def _check_seen(q: Tensor, keys: int, seen: Seen) -> None:
    batch, _, rows, _ = q.shape
    if not isinstance(seen, Intervals):
        if not 0 <= seen <= rows:
            raise UserError(f"attention: recent is {seen}; with {rows} rows it must lie between 0 and {rows}")
        return
    for name, tensor in (("begin", seen.begin), ("end", seen.end)):
        if tuple(tensor.shape) != (batch, rows) or tensor.dtype != torch.int32:
            raise UserError(
                f"attention: {name} of the intervals must be int32 of shape {(batch, rows)}; "
                f"given {tensor.dtype} of {tuple(tensor.shape)}"
            )
        if tensor.device != q.device:
            raise UserError(
                f"attention: {name} of the intervals is on {tensor.device}, q on {q.device}; move it there"
            )
    _check_values(seen, rows, keys)


def _check_values(seen: Intervals, rows: int, keys: int) -> None:
    """Of intervals; not where looking would wait for a device or break a compiled graph, or where there are none."""
    without = type(seen.begin) is not Tensor  # torch's fake tensors say that they are on a CPU
    if without or seen.begin.device.type != "cpu" or torch.compiler.is_compiling():
        return
    there = (seen.begin >= 0) & (seen.begin < seen.end) & (seen.end <= keys)
    if rows == keys:  # else nobody says which rows of the window they are
        row = torch.arange(rows, dtype=torch.int32)
        there &= (seen.begin <= row) & (row < seen.end)
    falls = (seen.begin.diff() < 0).any() | (seen.end.diff() < 0).any()
    if falls or not there.all():
        raise UserError(
            "attention: an interval needs 0 <= begin <= row < end <= rows, and neither begin nor end "
            "may fall from one row to the next; make them with megarc.data.intervals"
        )
