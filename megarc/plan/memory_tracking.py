"""Where memory goes in a real step, from the allocator's own count."""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from megarc.plan.memory import Memory, memory_table, predict
from megarc.train import Engine, Moment, Observer, StepResult, held

_MARK = "megarc: "


@contextmanager
def explained_memory() -> Iterator[Measuring]:
    """Counts all that is allocated while the block runs; its observer prints the table after the first step."""
    gc.collect()  # nothing from before is let go meanwhile
    recorded = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    recorded.start()
    watch = Measuring(recorded)
    try:
        yield watch
    finally:
        if not watch.table:
            recorded.stop()


class Measuring(Observer):
    """Watches a run's first step, then says what was predicted and what was measured."""

    def __init__(self, recorded: profile) -> None:
        self.recorded = recorded
        self.table = ""

    def start(self, engine: Engine, moment: Moment) -> None:
        engine.heartbeat.listeners.append(_mark)
        gc.collect()
        _mark("begin")

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        if self.table:
            return
        self.recorded.stop()
        groups = engine.groups
        seen = measured(engine, _timeline(self.recorded, groups.device.type))
        predicted = predict(engine.config, groups.topology, groups.world.rank)
        self.table = memory_table(predicted, seen)
        if groups.first:
            print(self.table)


@dataclass
class Timeline:
    """Bytes allocated after each event, by time, and when each phase began."""

    times: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    phases: list[tuple[int, str]] = field(default_factory=list)

    def at(self, time: int) -> int:
        place = bisect_right(self.times, time)
        return self.totals[place - 1] if place else 0

    def most(self, first: int, last: int) -> int:
        low, high = bisect_right(self.times, first), bisect_right(self.times, last)
        return max([self.at(first), *self.totals[low:high]])

    def first(self, phase: str, after: int = 0) -> int:
        """When the phase first began."""
        return min(time for time, name in self.phases if name == phase and time >= after)


def measured(engine: Engine, line: Timeline) -> Memory:
    """The rows of the table as a step showed them."""
    begin = line.first("begin")
    backward, update = line.first("backward", begin), line.first("update", begin)
    weights = sum(
        tensor.numel() * tensor.element_size()
        for _, parameter, _ in engine.parameters()
        for tensor in [getattr(parameter, "ds_tensor", parameter)]
    )
    state: dict[str, int] = {}
    own = {parameter.data_ptr() for _, parameter, _ in engine.parameters()}
    for fragment in held(engine):
        for name, tensor in fragment.state.items():
            bytes_ = 0 if tensor.data_ptr() in own else tensor.numel() * tensor.element_size()
            state[name] = state.get(name, 0) + bytes_
    stays, end = line.at(begin), line.times[-1]
    masters = state.pop("master")
    moments = sum(state.values())  # and the average of weights
    return Memory(
        weights=weights,
        masters=masters,
        moments=moments,
        buffers=stays - weights - masters - moments,
        gradients=line.at(update) - stays,
        activations=line.at(backward) - stays,
        step=line.most(begin, end) - stays,
    )


def _mark(phase: str) -> None:
    with record_function(_MARK + phase):
        pass


def _timeline(recorded: profile, device: str) -> Timeline:
    events = sorted(recorded.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    line, total = Timeline(), 0
    wanted = {"cpu": torch.autograd.DeviceType.CPU, "cuda": torch.autograd.DeviceType.CUDA}[device]
    for event in events:
        if event.name() == "[memory]" and event.device_type() == wanted:
            total += event.nbytes()
            line.times.append(event.start_ns())
            line.totals.append(total)
        elif event.name().startswith(_MARK):
            line.phases.append((event.start_ns(), event.name().removeprefix(_MARK)))
    return line
