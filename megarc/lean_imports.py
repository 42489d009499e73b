"""Importing large packages at less cost: no garbage collection meanwhile, nothing that would be loaded in vain."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection while the block runs, and none later of what is there at its end.

    An import makes hundreds of thousands of objects that stay. Python looks through all of them again and again,
    for a tenth of the time that the import of torch takes. What is garbage before the block is collected first.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Modules of these names cannot be imported, unless they are already: for optional ones that are never used."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
