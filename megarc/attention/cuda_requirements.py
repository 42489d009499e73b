"""What the engines for CUDA have in common: what they refuse."""

from __future__ import annotations

import torch


def refuse(
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    *,
    capability: tuple[int, int],
    largest: int,
    multiple: int = 1,
) -> str | None:
    """Why a kernel of half precision for GPUs from ``capability`` on cannot serve, or None."""
    if device.type != "cuda":
        return f"it runs on CUDA, the tensors are on {device}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it takes bfloat16 and float16, not {dtype}"
    if head_dim > largest or head_dim % multiple:
        needed = f"a multiple of {multiple} " if multiple > 1 else ""
        return f"it takes a head_dim that is {needed}up to {largest}, not {head_dim}"
    if not torch.cuda.is_available():
        return "no CUDA device is here"
    found = torch.cuda.get_device_capability(device)
    if found < capability:
        return f"it needs compute capability {capability[0]}.{capability[1]}, the device has {found[0]}.{found[1]}"
    return None
