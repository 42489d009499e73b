"""Places at which the host waits for the device: each a reading of a tensor's value, whatever device it is on."""

import traceback
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_READS = {"item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__float__", "__int__", "__index__"}


class Waits(TorchFunctionMode):
    """Counts readings, by phase and file that asks: ``places["update", "train/loop/observer.py"] == 1``.

    Python's calls are seen by name, those from C++ by their operator, ``_local_scalar_dense``.
    """

    def __init__(self, heartbeat):
        super().__init__()
        self.heartbeat = heartbeat
        self.places: dict[tuple[str, str], int] = {}
        self._below = _Operators(self)

    def __enter__(self):
        self._below.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._below.__exit__(*error)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in _READS:
            self.seen()
            with torch._C.DisableTorchFunction(), self._below.quiet():
                return function(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def seen(self):
        frames = [
            f
            for f in traceback.extract_stack()
            if "/torch/" not in f.filename and "waits.py" not in f.filename
        ]
        place = frames[-1]
        key = self.heartbeat.phase, "/".join(Path(place.filename).parts[-2:])
        self.places[key] = self.places.get(key, 0) + 1


class _Operators(TorchDispatchMode):
    def __init__(self, waits):
        super().__init__()
        self.waits, self.counting = waits, True

    def quiet(self):
        return _Quiet(self)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default and self.counting:
            self.waits.seen()
        return function(*args, **(kwargs or {}))


class _Quiet:
    def __init__(self, operators):
        self.operators = operators

    def __enter__(self):
        self.operators.counting = False

    def __exit__(self, *error):
        self.operators.counting = True
