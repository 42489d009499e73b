"""A profile shows the steps that were asked for, with every operator under the phase in which it ran."""

import gzip
import json
import logging
from types import SimpleNamespace

import torch

from megarc.train.heartbeat import Heartbeat
from megarc.train.loop import Moment
from megarc.train.metrics import Profile, Profiled
from megarc.train.metrics.profile import table_of


def run(folder, wanted, rank=0, first=0, total=8, ranks=2):
    """Steps of two products, one of them in "backward", watched by a profile."""
    heartbeat = Heartbeat()
    engine = SimpleNamespace(heartbeat=heartbeat, groups=SimpleNamespace(device=torch.device("cpu")))
    profile = Profile(wanted, folder, rank, ranks)
    profile.start(engine, Moment(first, total, 0))
    a = torch.ones(8, 8)
    for step in range(first, total):
        profile.before_step(engine, Moment(step, total, 0), [])
        heartbeat.enter("forward")
        a @ a
        heartbeat.enter("backward")
        (a + 1).sin()
        heartbeat.enter("observing")
        profile.after_step(engine, Moment(step + 1, total, 0), None)
    assert not heartbeat.listeners
    return sorted(path.name for path in folder.glob("*"))


def test_trace_and_table_show_the_steps_by_phase(tmp_path):
    names = run(tmp_path, Profiled(3, 2, [0], memory=True))
    assert names == ["rank-00000-step-000000004.trace.json.gz", "rank-00000-step-000000004.txt"]
    table = (tmp_path / names[1]).read_text()
    parts = {part.split(":")[0]: part for part in table.split("\n\n")}
    assert "aten::sin" in parts["backward"] and "aten::mm" not in parts["backward"]
    assert "aten::mm" in parts["forward"] and "aten::sin" not in parts["forward"]
    row = next(line for line in parts["backward"].splitlines() if line.endswith("aten::sin"))
    assert float(row.split()[2]) == 1.0  # a call a step
    with gzip.open(tmp_path / names[0]) as file:
        events = [event["name"] for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    assert events.count("phase: forward") == 2 and events.count("aten::sin") == 2


def test_other_ranks_and_jobs_behind_it_write_nothing(tmp_path):
    assert run(tmp_path, Profiled(3, 2, [1], memory=False)) == []
    assert run(tmp_path, None) == []
    assert run(tmp_path, Profiled(1, 2, [0], memory=False), first=4) == []


def test_what_is_never_profiled_is_said_at_the_start(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path, Profiled(8, 2, [0], memory=False)) == []
        assert "profile.at is after 8 steps, and this job ends after 8" in caplog.text
        run(tmp_path, Profiled(3, 2, [-1, 1, 2], memory=False))
        assert "profile.ranks has [-1, 2], and the run has ranks 0 to 1" in caplog.text
        said = len(caplog.records)
        run(tmp_path, Profiled(7, 5, [0, 1], memory=False), rank=1)
        assert len(caplog.records) == said


def test_a_run_that_ends_before_it_is_over_writes_what_there_is(tmp_path):
    assert run(tmp_path, Profiled(7, 5, [0], memory=False))
    table = next(tmp_path.glob("*.txt")).read_text()
    assert "aten::sin" in table


def event(name, start, end, *, kernels=(), memory=0, device="CPU"):
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        device_type=f"DeviceType.{device}",
        kernels=kernels,
        self_cpu_time_total=end - start,
        self_device_time_total=sum(one.duration for one in kernels),
        self_cpu_memory_usage=0,
        self_device_memory_usage=memory,
    )


def test_kernels_and_memory_are_listed_by_phase():
    """Events as a GPU gives them; the kernel of a phase itself was started by no operator of torch."""
    kernel = SimpleNamespace
    events = [
        event("phase: forward", 0, 100, kernels=[kernel(name="triton_fused", duration=500)]),
        event("phase: backward", 100, 200),
        event("aten::mm", 10, 20, kernels=[kernel(name="gemm", duration=3000)], memory=6 << 20),
        event("aten::mm", 110, 120, kernels=[kernel(name="gemm", duration=1000)] * 2),
        event("gemm", 30, 40, device="CUDA"),
    ]
    parts = {part.split(":")[0]: part.splitlines() for part in table_of(events, 2, memory=True).split("\n\n")}
    assert [line.split() for line in parts["forward"][2:]] == [
        ["0.005", "1.500", "0.5", "3.000", "aten::mm"],
        ["device", "calls", "kernel"],
        ["1.500", "0.5", "gemm"],
        ["0.250", "0.5", "triton_fused"],
    ]
    assert parts["backward"][-1].split() == ["1.000", "1.0", "gemm"]
    assert "MiB" not in table_of(events, 2)


def test_a_profiler_that_cannot_begin_is_a_warning(tmp_path, caplog, monkeypatch):
    def refuse(**how):
        raise RuntimeError("another profiler is at work")

    monkeypatch.setattr(torch.profiler, "profile", refuse)
    assert run(tmp_path, Profiled(3, 2, [0], memory=False)) == []
    assert "the profiler could not start: another profiler" in caplog.text


def test_memory_on_a_cpu_is_a_column_of_the_table(tmp_path):
    run(tmp_path, Profiled(3, 2, [0], memory=True))
    table = next(tmp_path.glob("*.txt")).read_text()
    assert table.count("       MiB  operator") == table.count(" ms device")
