"""Ceilings of the device: what MFU divides by, the memory's high-water mark and its end."""

from __future__ import annotations

import resource
import time

import torch

# Dense, without sparsity, in FLOP/s; from the vendors' data sheets.
_BF16_PEAKS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
}
_FP32_SHARE = 0.5  # of bf16, by TF32, on these

_WORDS_OF_NO_MEMORY = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad alloc",
)  # fmt: skip


def peak_flops(device: torch.device, precision: str) -> float:
    """FLOP/s of one device: a data sheet's figure for a GPU known by name, else a measured matrix product."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = sorted((part for part in _BF16_PEAKS if part in name), key=len)
        if known:
            return _BF16_PEAKS[known[-1]] * (1.0 if precision == "bf16" else _FP32_SHARE)
    return _measured(
        device, torch.bfloat16 if device.type == "cuda" and precision == "bf16" else torch.float32
    )


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def no_memory(error: Exception) -> bool:
    """Whether it says that memory ran out: allocators have no type of error in common."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error).lower() for words in _WORDS_OF_NO_MEMORY)


def _measured(device: torch.device, dtype: torch.dtype, size: int = 1024) -> float:
    """The best of a few square products, about 0.1 s on a CPU core."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        float((a @ b)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
