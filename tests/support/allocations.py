"""Bytes that tensors hold while some code runs, from the allocator's own events."""

import gc
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass
class Allocations:
    """Above what was held at the start: the most at once, what is left at the end, the largest single piece."""

    peak: int = 0
    left: int = 0
    largest: int = 0


@contextmanager
def allocations():
    """Counts what torch's CPU allocator gives and takes back, whoever asks for it."""
    gc.collect()  # nothing older is let go meanwhile
    found = Allocations()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        yield found
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            found.left += event.nbytes()
            found.peak = max(found.peak, found.left)
            found.largest = max(found.largest, event.nbytes())
