"""Where memory goes in a real step, from the allocator's own count."""

from __future__ import annotations

import gc
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from megarc.plan.memory import Memory, memory_table, predict
from megarc.train import Engine, Lengths, Moment, Observer, StepResult, held
from megarc.window import Window

_MARK = "megarc: "
_LET_GO = 5e-3  # seconds in which a thread of gloo, once its collective is done, lets the tensors go


@contextmanager
def explained_memory() -> Iterator[Measuring]:
    """Counts all that is allocated while the block runs; its observer prints the table after the first step."""
    gc.collect()  # nothing from before is let go meanwhile
    recorded = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    recorded.start()
    watch = Measuring(recorded)
    try:
        with freed_where_it_counts(lambda: not watch.table):
            yield watch
    finally:
        if not watch.table:
            recorded.stop()


@contextmanager
def freed_where_it_counts(wanted: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """While ``wanted``, waiting for a collective also waits until gloo's thread has let its tensors go.

    The profiler counts what threads free that it has started in, or that autograd starts. A thread of gloo's is none of
    these. Where it holds a tensor last, what was allocated seems never to be freed: on two ranks that was up to a
    third of all memory, and another part of it in every run.
    """
    if not dist.is_initialized() or dist.get_backend() != "gloo":
        yield
        return
    waited = dist.Work.wait

    def wait(work: dist.Work, *how: Any, **ways: Any) -> Any:
        done = waited(work, *how, **ways)
        if wanted():
            time.sleep(_LET_GO)
        return done

    dist.Work.wait = wait
    try:
        yield
    finally:
        dist.Work.wait = waited


class Measuring(Observer):
    """Watches a run's first step, then says what was predicted and what was measured."""

    def __init__(self, recorded: profile) -> None:
        self.recorded = recorded
        self.table = ""
        self.window: Window | None = None  # of the step that is watched

    def start(self, engine: Engine, moment: Moment) -> None:
        if engine.config.window.stages:
            self.window = Lengths(engine.config).shapes.piece(moment.samples).window
        engine.heartbeat.listeners.append(_mark)
        gc.collect()
        _mark("begin")

    def after_step(self, engine: Engine, moment: Moment, result: StepResult) -> None:
        if self.table:
            return
        self.recorded.stop()
        groups = engine.groups
        seen = measured(engine, _timeline(self.recorded, groups.device.type))
        place = (engine.config, groups.topology, groups.world.rank)
        self.table = memory_table(predict(*place, window=self.window), seen)
        if self.window is not None:
            self.table += "\n" + _of_stages(self.window, engine.config.window.largest(), predict(*place).peak)
        if groups.expert.size > 1 and engine.experts is not None:
            self.table += "\n" + _of_experts(engine.experts.came())
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


def _of_stages(seen: Window, largest: Window, peak: float) -> str:
    """What the table is of, and what the stage of the largest window is predicted to take."""
    return (
        f"The step above has windows of {seen.recent} + {seen.causal} rows. With those of the largest stage, "
        f"{largest.recent} + {largest.causal}, {peak / 2**20:.2f} MiB are predicted at most"
    )


def _of_experts(came: list[float]) -> str:
    """How uneven the rows of experts were, where each rank has some of them."""
    return (
        "The prediction assumes that each rank's experts get equally many rows. In the step above, this rank's got "
        f"{min(came):.2f} to {max(came):.2f} times an even share, by layer"
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
