"""Ceilings of the device: what MFU divides by, the memory's high-water mark and its end."""

from __future__ import annotations

import resource
import time

import torch

# Dense, without sparsity, in FLOP/s; from the vendors' data sheets. By the whole name that the driver gives:
# cards of one family differ (an H100 NVL is slower than an H100 SXM), and a MIG slice's name begins with its card's.
_BF16_PEAKS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L40S": 362e12,
}
_FP32_SHARE = 0.5  # of bf16, by TF32, on these

_WORDS_OF_NO_MEMORY = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad alloc",
)  # fmt: skip


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP/s of one device: a data sheet's figure for a GPU, a measured matrix product for a CPU.

    None for a GPU that the table does not know: a product that is measured there says little of its peak.
    """
    if device.type != "cuda":
        return _measured(device, torch.float32)
    peak = _BF16_PEAKS.get(torch.cuda.get_device_name(device))
    if peak is None:
        return None
    return peak if precision == "bf16" else peak * _FP32_SHARE


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
    """The best of a few products of a matrix with itself, less than 0.1 s on a CPU core."""
    a = torch.full((size, size), 0.5, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
