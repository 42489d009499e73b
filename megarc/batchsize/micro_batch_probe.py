"""Tries micro-batches on the real engine: builds it, takes steps at learning rate 0, watches the memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from megarc.batchsize.config import MicroConfig
from megarc.batchsize.micro_batch_search import Trial
from megarc.data import Maker
from megarc.parallel import Groups, gather_objects
from megarc.process_memory import give_back, resident_megabytes
from megarc.train import Lengths, MicroBatch, RunConfig, build_engine, open_train, resolve, to_tensors
from megarc.train.metrics import no_memory, peak_memory

_MICRO_BATCHES = 8  # at most, of a step that is timed: enough for the update to weigh little
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Probe:
    """Tries sizes of one setting of recomputation; all ranks call it together and agree."""

    def __init__(
        self,
        config: RunConfig,
        groups: Groups,
        makers: Mapping[str, Maker],
        recompute: str,
        keys: MicroConfig,
    ) -> None:
        self.keys, self.groups, self.recompute = keys, groups, recompute
        self.stream = open_train(config, makers)
        self.share = Lengths(config).batches.size(0) // groups.data.size  # a rank's samples of a step
        execution = config.execution.model_copy(update={"recompute": recompute})
        batch = config.batch.model_copy(
            update={"size": groups.data.size, "micro": 1, "stages": [], "measured": []}
        )
        config = config.model_copy(update={"execution": execution, "batch": batch})
        self.config = resolve(config, self.stream, groups.topology)
        self.limit = _limit(groups.device, keys.memory_gib)
        self.process_bytes = _before(groups.device)
        self._engine = build_engine(self.config, groups)
        self._memory: dict[int, int] = {}  # of the sizes that fit

    def attempt(self, size: int) -> Trial:
        """Steps of ``size`` samples a micro-batch; memory that runs out is recovered from."""
        too_much = Trial(size, self.recompute, fits=False)
        if self.groups.pipeline.size > 1 and self._memory:
            self._rebuild()  # a pipeline's buffers between stages are made for one size
        if self._projected(size) > self.limit:
            return too_much
        try:
            trial = self._measure(size)
        except (MemoryError, RuntimeError) as error:
            if not no_memory(error):
                raise
            trial = None
        if trial is None:  # beyond the except block, so that its traceback lets go of the tensors
            self._rebuild()
        agreed = gather_objects(None if trial is None else trial.memory, self.groups.world)
        if trial is None or any(memory is None or memory > self.limit for memory in agreed):
            return too_much
        self._memory[size] = max(memory for memory in agreed if memory)
        return replace(trial, memory=self._memory[size])

    def close(self) -> None:
        """Lets the engine go."""
        self._engine.close()
        gc.collect()
        if self.groups.device.type == "cuda":
            torch.cuda.empty_cache()

    def _measure(self, size: int) -> Trial:
        samples = self.stream.read(0, size)
        self.stream.check_ids(samples, self.config.model.tokens)
        batch = to_tensors(samples, self.groups.device, sharing=self._engine.sharing)
        _reset_peak(self.groups.device)
        count = max(1, min(_MICRO_BATCHES, self.share // size))
        seconds = self._seconds([batch] * count)
        return Trial(size, self.recompute, True, _peak(self.groups.device), count, seconds)

    def _seconds(self, micro_batches: Sequence[MicroBatch]) -> float:
        """Of a step, the least over those after the first, which may compile and allocate."""
        times = []
        for _ in range(self.keys.repeats + 1):
            begun = time.perf_counter()
            float(self._engine.step(micro_batches, 0.0).loss)  # waits for the device
            times.append(time.perf_counter() - begun)
        return min(times[1:])

    def _projected(self, size: int) -> float:
        """What ``size`` would take, from the two largest that fit: a CPU's host must not be driven to its end."""
        if self.groups.device.type == "cuda" or len(self._memory) < 2:
            return 0.0
        below, last = sorted(self._memory)[-2:]
        slope = (self._memory[last] - self._memory[below]) / (last - below)
        return self._memory[last] + slope * (size - last)

    def _rebuild(self) -> None:
        """After memory ran out in the middle of a step the engine's own state is anybody's guess."""
        self.close()
        self._engine = build_engine(self.config, self.groups)


def _before(device: torch.device) -> float:
    """What counts against the limit before the engine is built: on a CPU, the process with Python and its libraries."""
    return 0.0 if device.type == "cuda" else 1e6 * resident_megabytes()


def _limit(device: torch.device, gib: float | None) -> float:
    if gib is not None:
        return gib * 2**30
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return 0.8 * psutil.virtual_memory().available


def _reset_peak(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        give_back()
        _CLEAR.write_text("5")  # Linux: the high-water mark of this process starts anew


def _peak(device: torch.device) -> int:
    if device.type == "cpu" and _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return peak_memory(device)
