"""Some steps seen from inside, by torch's profiler: `RUN/profile/`.

rank-00000-step-000000011.trace.json.gz   for https://ui.perfetto.dev or chrome://tracing
rank-00000-step-000000011.txt             which operators and kernels take the time of each phase of a step, and, with
                                          memory, what each operator allocates
rank-00000-step-000000011.memory.pickle   allocations, for https://pytorch.org/memory_viz (CUDA)
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megarc.train.engine import Engine, MicroBatch, StepResult
from megarc.train.heartbeat import Heartbeat
from megarc.train.loop import Ending, Moment, Observer

log = logging.getLogger("megarc")

_MARK = "phase: "
_ROWS = 15  # of the table, for each phase
_ALLOCATIONS = 200_000  # that a snapshot keeps


@dataclass(frozen=True, slots=True)
class Profiled:
    """What is profiled: steps ``first`` .. ``first + steps - 1``, counted from 0, on these ranks."""

    first: int
    steps: int
    ranks: Sequence[int]
    memory: bool


class Profile(Observer):
    """Nothing of it exists outside the profiled steps; what goes wrong with it never stops the run."""

    def __init__(self, wanted: Profiled | None, folder: Path, rank: int, ranks: int = 1) -> None:
        """
        Args:
            rank: this one, of ``ranks``.
        """
        if wanted is not None and rank == 0 and (absent := set(wanted.ranks) - set(range(ranks))):
            log.warning("profile.ranks has %s, and the run has ranks 0 to %d", sorted(absent), ranks - 1)
        self._asked = wanted if rank == 0 else None
        self._wanted = wanted if wanted is not None and rank in wanted.ranks else None
        self._folder, self._rank = folder, rank
        self._first = 0
        self._profiler: Any = None
        self._phases: _Phases | None = None

    def start(self, engine: Engine, moment: Moment) -> None:
        if self._asked is not None and self._asked.first >= moment.total:
            log.warning(
                "profile.at is after %d steps, and this job ends after %d: nothing is profiled",
                self._asked.first, moment.total,
            )  # fmt: skip
        if self._wanted is not None:
            # The first step of a process compiles, allocates and warms up.
            self._first = max(self._wanted.first, moment.step + 1)
            if moment.step >= self._wanted.first + self._wanted.steps:
                self._wanted = None  # an earlier job has profiled

    def before_step(self, engine: Engine, moment: Moment, micro_batches: Sequence[MicroBatch]) -> None:
        if self._wanted is None or moment.step != self._first:
            return
        try:
            self._begin(engine.groups.device.type == "cuda", self._wanted.memory)
        except RuntimeError as error:  # another profiler is at work, or the allocator keeps no history
            log.warning("profile: the profiler could not start: %s", error)
            self._wanted = self._profiler = None
            return
        self._phases = _Phases(engine.heartbeat)

    def _begin(self, cuda: bool, memory: bool) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
        if cuda and memory:
            torch.cuda.memory._record_memory_history(max_entries=_ALLOCATIONS)
        self._profiler = torch.profiler.profile(activities=kinds, profile_memory=memory)
        self._profiler.__enter__()

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        if self._profiler is None or self._wanted is None:
            return
        if moment.step == self._first + self._wanted.steps or moment.last:
            self._write(engine)

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        if self._profiler is not None:
            self._write(engine)

    def _write(self, engine: Engine) -> None:
        wanted, self._wanted = self._wanted, None
        profiler, self._profiler = self._profiler, None
        assert self._phases is not None and wanted is not None
        self._phases.end()
        cuda = engine.groups.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
        profiler.__exit__(None, None, None)
        stem = self._folder / f"rank-{self._rank:05d}-step-{self._first + 1:09d}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            profiler.export_chrome_trace(f"{stem}.trace.json.gz")
            Path(f"{stem}.txt").write_text(
                table_of(profiler.events(), wanted.steps, memory=wanted.memory), encoding="utf-8"
            )
            if cuda and wanted.memory:
                torch.cuda.memory._dump_snapshot(f"{stem}.memory.pickle")
        except (OSError, RuntimeError) as error:
            log.warning("profile: %s could not be written: %s", stem, error)
            return
        finally:
            if cuda and wanted.memory:
                torch.cuda.memory._record_memory_history(enabled=None)
        log.info("profile: %s.trace.json.gz (open it on https://ui.perfetto.dev) and %s.txt", stem, stem)


class _Phases:
    """Marks the phases that the main thread enters, so that the trace shows them and the table can sum by them."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat, self._thread = heartbeat, threading.get_ident()
        self._open: Any = None
        heartbeat.listeners.append(self._entered)
        self._entered(heartbeat.phase)

    def _entered(self, phase: str) -> None:
        if threading.get_ident() != self._thread or phase != self._heartbeat.phase:
            return
        self._close()
        self._open = torch.profiler.record_function(_MARK + phase)
        self._open.__enter__()

    def end(self) -> None:
        """Marks no more."""
        self._close()
        with suppress(ValueError):
            self._heartbeat.listeners.remove(self._entered)

    def _close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


@dataclass(slots=True)
class _Cost:
    """Of one operator or kernel, a step."""

    cpu: float = 0.0  # milliseconds
    device: float = 0.0
    mib: float = 0.0  # allocated, less what it freed
    calls: float = 0.0


def table_of(events: Sequence[Any], steps: int, *, memory: bool = False) -> str:
    """Operators by phase: their own milliseconds a step on the CPU and on the device, and their calls; then kernels.

    Args:
        memory: also the MiB that each operator allocates and does not free, on the device if it has used one.
    """
    marks = sorted(
        (event.time_range.start, event.time_range.end, event.name.removeprefix(_MARK))
        for event in events
        if event.name.startswith(_MARK) and event.time_range.end > event.time_range.start
    )
    operators: dict[str, dict[str, _Cost]] = defaultdict(lambda: defaultdict(_Cost))
    kernels: dict[str, dict[str, _Cost]] = defaultdict(lambda: defaultdict(_Cost))
    for event in events:
        if "CPU" not in str(event.device_type):
            continue
        begin = event.time_range.start
        phase = next((name for start, end, name in marks if start <= begin < end), "outside a phase")
        for kernel in event.kernels:  # also of a phase itself: those that no operator of torch has started
            entry = kernels[phase][kernel.name]
            entry.device += kernel.duration / 1000 / steps
            entry.calls += 1 / steps
        if event.name.startswith(_MARK):
            continue
        entry = operators[phase][event.name]
        entry.cpu += event.self_cpu_time_total / 1000 / steps
        entry.device += event.self_device_time_total / 1000 / steps
        entry.mib += (event.self_device_memory_usage or event.self_cpu_memory_usage) / 2**20 / steps
        entry.calls += 1 / steps
    lines = [f"milliseconds a step, over {steps} steps, each operator without those that it calls", ""]
    order = sorted(
        operators, key=lambda phase: -sum(one.cpu + one.device for one in operators[phase].values())
    )
    for phase in order:
        lines += [*_rows_of(phase, operators[phase], kernels[phase], memory=memory), ""]
    return "\n".join(lines)


def _rows_of(
    phase: str, operators: dict[str, _Cost], kernels: dict[str, _Cost], *, memory: bool
) -> Iterator[str]:
    cpu, device = (sum(getattr(one, kind) for one in operators.values()) for kind in ("cpu", "device"))
    yield f"{phase}: {cpu:.3f} ms CPU, {device:.3f} ms device"
    yield f"{'CPU':>12}{'device':>12}{'calls':>10}" + (f"{'MiB':>12}" if memory else "") + "  operator"
    for name, one in sorted(operators.items(), key=lambda item: (-item[1].device, -item[1].cpu))[:_ROWS]:
        more = f"{one.mib:12.3f}" if memory else ""
        yield f"{one.cpu:12.3f}{one.device:12.3f}{one.calls:10.1f}{more}  {name}"
    if kernels:
        yield f"{'':12}{'device':>12}{'calls':>10}" + (" " * 12 if memory else "") + "  kernel"
    for name, one in sorted(kernels.items(), key=lambda item: -item[1].device)[:_ROWS]:
        yield f"{'':12}{one.device:12.3f}{one.calls:10.1f}" + (" " * 12 if memory else "") + f"  {name}"
