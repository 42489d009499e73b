"""Measures the machine at hand: products, attention, memory, functions, AdamW, an operator's cost, a collective.

Each is the best of several short runs. On a CPU the process's own time counts, since others may use the machine.

In a step, what an operator reads was written many operators ago, and caches do not have it any more. Each call here
therefore takes the next of several sets of tensors, which together are larger than caches.
"""

from __future__ import annotations

import math
import mmap
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from megarc.attention import attend
from megarc.config import to_yaml
from megarc.model import ExecutionConfig, ModelConfig, Transformer, fake_pass
from megarc.plan.device import FROM_SYSTEM, DeviceConfig, LinkConfig, MeasuredConfig
from megarc.plan.known_devices import KNOWN
from megarc.plan.operations import BACKWARD_PAIRS, Recorder
from megarc.window import Window

_ROUNDS = 7
_FUNCTIONS = 1 << 18  # elements
_SIZES = (32, 64, 128, 256, 512, 1024)  # of square products
_ROWS = (64, 256, 1024)
_MOVED = (1 << 12, 1 << 16, 1 << 19, 1 << 22)  # elements of an operator
_BEYOND_CACHES, _MOST_SETS = 128 << 20, 512  # bytes of all sets of tensors that a measurement takes in turn
_UPDATED = 1 << 22  # elements; with AdamW's state, 64 MiB
_SENT = (1 << 10, 1 << 22)  # elements of an all-reduce


def calibrate(device: torch.device, dtype: torch.dtype = torch.float32) -> DeviceConfig:
    """The device of this process, from measurements: a minute on a CPU core."""
    tiny = _tiny_operator(device)
    products = [(2.0 * n**3, 2.0 * n**3 / max(1e-9, _product(device, dtype, n) - tiny)) for n in _SIZES]
    memory = [(12.0 * n, 12.0 * n / max(1e-9, _moved(device, n) - tiny)) for n in _MOVED]
    forward, backward = _attention(device, dtype)
    functions = _FUNCTIONS / max(1e-9, _passed(device, torch.sigmoid) - _passed(device, torch.neg))
    operator = _operator(device, products, memory)
    link, (product, far) = _two_ranks(device.type)
    measured = MeasuredConfig(
        products=products, memory=memory, attention=forward, attention_backward=backward,
        functions=functions, optimizer=_adamw(device), crowded=(product, far),
        fresh=_fresh(device) if device.type == "cpu" else None,
    )  # fmt: skip
    best = max(rate for _, rate in products)
    return DeviceConfig(
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        kind="cuda" if device.type == "cuda" else "cpu",
        memory_gib=_memory_gib(device), reserved_gib=1.5 if device.type == "cuda" else 0.25,
        bf16=best, fp32=best, bandwidth=max(rate for _, rate in memory), operator_seconds=operator,
        node=max(8, torch.cuda.device_count()), inside=link, between=KNOWN["cpu"].between if device.type == "cpu"
        else KNOWN["h100-80g"].between, measured=measured,
    )  # fmt: skip


def as_file(device: DeviceConfig) -> str:
    """What `--device FILE` reads."""
    return f"# Measured by launch/plan.py --calibrate, {time.strftime('%Y-%m-%d')}.\n" + to_yaml(device)


def best_seconds(
    device: torch.device,
    work: Callable[[], object],
    rounds: int = _ROUNDS,
    pick: Callable[[Iterable[float]], float] = min,
) -> float:
    """Of one call, the least of several, or what ``pick`` takes; a call too short for the clock is repeated."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time

    def timed(times: int) -> float:
        begun = clock()
        for _ in range(times):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - begun

    times = 1
    while (took := timed(times)) < 4e-3 and times < 1 << 14:
        times = max(2 * times, min(1 << 14, int(times * 5e-3 / max(took, 1e-6))))
    return pick(timed(times) for _ in range(rounds)) / times


def _product(device: torch.device, dtype: torch.dtype, n: int, **how: Any) -> float:
    sets = _sets(device, (n, n), 3, dtype)
    return best_seconds(device, lambda: _multiply(*next(sets)), **how)


def _multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return torch.mm(a, b.t(), out=out)


def _moved(device: torch.device, n: int, **how: Any) -> float:
    sets = _sets(device, (n,), 3)

    def work() -> torch.Tensor:
        a, b, out = next(sets)
        return torch.mul(a, b, out=out)

    return best_seconds(device, work, **how)


def _passed(device: torch.device, operator: Callable[..., torch.Tensor]) -> float:
    """Of ``operator`` on each element: a function, or ``torch.neg``, which moves the same bytes without one."""
    sets = _sets(device, (_FUNCTIONS,), 2)

    def work() -> torch.Tensor:
        a, out = next(sets)
        return operator(a, out=out)

    return best_seconds(device, work)


def _sets(
    device: torch.device, shape: Sequence[int], each: int, dtype: torch.dtype = torch.float32
) -> Iterator[list[torch.Tensor]]:
    """Sets of ``each`` tensors, one after the other and round again."""
    size = each * math.prod(shape) * dtype.itemsize
    count = min(_MOST_SETS, -(-_BEYOND_CACHES // size))
    return cycle(
        [[torch.randn(*shape, device=device, dtype=dtype) for _ in range(each)] for _ in range(count)]
    )


def _fresh(device: torch.device) -> float:
    """Bytes a second that are written where the system has to give the memory first."""
    size = 2 * FROM_SYSTEM

    def work() -> None:  # torch.empty may be given memory of this process that was let go
        torch.frombuffer(mmap.mmap(-1, size), dtype=torch.float32).fill_(1.0)

    return size / best_seconds(device, work)


def _tiny_operator(device: torch.device) -> float:
    a = torch.randn(8, device=device)
    return best_seconds(device, lambda: a * a)


def _attention(
    device: torch.device, dtype: torch.dtype
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    forward, backward = [], []
    for rows in _ROWS:
        sets = _sets(device, (2, 4, rows, 64), 4, dtype)
        flops = 2 * Window(rows // 2, rows - rows // 2, 1).attention_flops(4, 64)

        def ahead(
            sets: Iterator[list[torch.Tensor]] = sets, rows: int = rows
        ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
            q, k, v, gradient = next(sets)
            inputs = [one.requires_grad_() for one in (q, k, v)]
            return inputs, attend(q, k, v, rows // 2), gradient

        def both(ahead: Callable[[], Any] = ahead) -> None:
            inputs, out, gradient = ahead()
            torch.autograd.grad(out, inputs, gradient)

        one = best_seconds(device, ahead)
        two = best_seconds(device, both)
        forward.append((float(rows), flops / one))
        backward.append((float(rows), BACKWARD_PAIRS * flops / max(1e-9, two - one)))
    return forward, backward


def _adamw(device: torch.device) -> float:
    weight = torch.nn.Parameter(torch.randn(_UPDATED, device=device))
    weight.grad = torch.randn_like(weight)
    adam = torch.optim.AdamW([weight], fused=True)
    return _UPDATED / best_seconds(device, adam.step)


def _operator(
    device: torch.device, products: list[tuple[float, float]], memory: list[tuple[float, float]]
) -> float:
    """Of a small model's step, what its work does not explain, by operator: autograd and Python weigh the most."""
    model = ModelConfig(layers=1, hidden=32, heads=2, vocabulary=128)
    execution, window = ExecutionConfig(head_rows=64), Window(8, 8, 8)
    seconds, counts = [], []
    for layers in (1, 3):
        shape = model.model_copy(update={"layers": layers})
        real = Transformer(shape, execution).to(device)
        for parameter in real.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        tokens = torch.zeros(1, window.tokens, dtype=torch.long, device=device)

        def work(real: Transformer = real, tokens: torch.Tensor = tokens) -> None:
            real(tokens, window.loss_rows, window.recent).objective.backward()
            real.zero_grad()

        seconds.append(best_seconds(device, work))
        recorder = Recorder()
        fake_pass(shape, execution, window, 1, torch.float32, torch.device("cpu"), None, recorder)
        counts.append(len(recorder.operations(fused=False)))
    return max(1e-7, (seconds[1] - seconds[0]) / (counts[1] - counts[0]))


def _memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    import psutil

    return psutil.virtual_memory().total / 2**30


def _two_ranks(kind: str) -> tuple[LinkConfig, tuple[float, ...]]:
    """The link between two processes of this machine, and how much longer work takes beside the other's.

    Where there are no two devices, the data sheet's link.
    """
    if kind == "cuda" and torch.cuda.device_count() < 2:
        return KNOWN["h100-80g"].inside, (1.0, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(_reduce, (folder, kind), nprocs=2)
        short, long, *crowded = (float(word) for word in (Path(folder) / "seconds").read_text().split())
    # Two ranks: an all-reduce is 2 messages, and moves S bytes each way.
    moved = [4 * size for size in _SENT]
    bandwidth = (moved[1] - moved[0]) / max(1e-9, long - short)
    link = LinkConfig(bandwidth=bandwidth, latency=max(0.0, (short - moved[0] / bandwidth) / 2))
    return link, tuple(crowded)


def _reduce(rank: int, folder: str, kind: str) -> None:
    torch.set_num_threads(1)
    backend = "nccl" if kind == "cuda" else "gloo"
    device = torch.device("cuda", rank) if kind == "cuda" else torch.device("cpu")
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for size in _SENT:
        data = torch.ones(size, device=device)
        best = float("inf")
        for _ in range(12):
            dist.barrier()
            begun = time.perf_counter()
            dist.all_reduce(data)
            if kind == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begun)
        found.append(best)
    found += _beside_the_other(rank, device) if kind == "cpu" else [1.0, 1.0]
    if rank == 0:
        (Path(folder) / "seconds").write_text(" ".join(str(value) for value in found))
    dist.destroy_process_group()


def _beside_the_other(rank: int, device: torch.device) -> list[float]:
    """Times that a product and a memory-bound operator take as long as alone.

    Rank 0 measures. The other does the same work for longer, so that rank 0 is never alone.
    """
    times = []
    for work in (
        lambda rounds: _product(device, torch.float32, 512, rounds=rounds, pick=statistics.median),
        lambda rounds: _moved(device, _MOVED[-1], rounds=rounds, pick=statistics.median),
    ):
        alone = work(2 * _ROUNDS) if rank == 0 else 0.0
        dist.barrier()
        beside = work(2 * _ROUNDS if rank == 0 else 4 * _ROUNDS)
        dist.barrier()
        times.append(max(1.0, beside / alone) if alone else 1.0)
    return times
