"""Another backend of torch.compile: one that traces whole functions as always, and starts no C++ compiler."""

from contextlib import contextmanager, nullcontext
from functools import partial
from unittest import mock

import torch

TRACED = "aot_eager"
"""Forward and backward pass as one graph each, which torch then runs operator by operator."""


def compiling_with(backend):
    """torch.compile uses ``backend`` while the block runs; None: its own."""
    return nullcontext() if backend is None else _patched(backend)


@contextmanager
def _patched(backend):
    torch._dynamo.reset()
    with mock.patch.object(torch, "compile", partial(torch.compile, backend=backend)):
        yield
    torch._dynamo.reset()
