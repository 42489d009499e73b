"""Resuming is one number: whatever is killed and restarted, and as what, the samples are the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megarc.config import build
from megarc.data import DataConfig, Stream, open_stream, part_of_step
from megarc.window import Window

WINDOW = Window(6, 10, 8)

# One data rank: reads its part of every step and writes what it read, a line a micro-batch.
RANK = """
import itertools, sys, zlib
from pathlib import Path
from megarc.config import build
from megarc.data import Ahead, DataConfig, open_stream, part_of_step
from megarc.window import Window

folder, log, first, batch, rank, ranks, micro = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
train = [{"path": f"{folder}/one", "weight": 2}, {"path": f"{folder}/two"}]
config = build(DataConfig, {"train": train, "short_recent": 0.2, "documents": "isolate"}, "test")
stream = open_stream(config, "train", Window(6, 10, 8), seed=5)
parts = (part_of_step(first + t * batch, batch, rank, ranks, micro) for t in itertools.count())
with Ahead(stream.read, itertools.chain.from_iterable(parts)) as batches, open(log, "w", buffering=1) as file:
    for number, got in enumerate(batches):
        crc = [zlib.crc32(t.tobytes() + d.tobytes()) for t, d in zip(got.tokens, got.documents)]
        print(*(f"{k}:{c}:{r}" for k, c, r in zip(got.samples, crc, got.recent)), "end", file=file)
"""


def corpora(packed: Callable[..., Path]) -> Path:
    packed("one", [37, 400, 5, 90] * 20)
    return packed("two", [200, 61], first=10**6).parent


def opened(folder: Path) -> Stream:
    train = [{"path": f"{folder}/one", "weight": 2}, {"path": f"{folder}/two"}]
    tree = {"train": train, "short_recent": 0.2, "documents": "isolate"}
    return open_stream(build(DataConfig, tree, "test"), "train", WINDOW, seed=5)


def uninterrupted(folder: Path, samples: int) -> list[str]:
    batch = opened(folder).read(0, samples)
    assert batch.documents is not None
    crc = [zlib.crc32(t.tobytes() + d.tobytes()) for t, d in zip(batch.tokens, batch.documents, strict=True)]
    return [f"{k}:{c}:{r}" for k, c, r in zip(batch.samples, crc, batch.recent, strict=True)]


TOPOLOGIES = st.tuples(st.integers(1, 8), st.integers(1, 5), st.integers(1, 4), st.integers(0, 6))


@given(runs=st.lists(TOPOLOGIES, min_size=1, max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_every_stop_and_every_topology_reads_the_same_samples(
    packed: Callable[..., Path], runs: list[tuple[int, int, int, int]]
) -> None:
    """Runs of (ranks, micro-batch, micro-batches, steps), each rank with a stream of its own."""
    folder = corpora(packed)
    consumed, read = 0, {}
    for ranks, micro_batch, times, steps in runs:
        batch = ranks * micro_batch * times
        for rank in reversed(range(ranks)):
            stream = opened(folder)
            for step in range(steps):
                for part in part_of_step(consumed + step * batch, batch, rank, ranks, micro_batch):
                    got = stream.read(*part)
                    read.update(zip(got.samples.tolist(), got.tokens.tolist(), strict=True))
        consumed += steps * batch
    if consumed:
        assert [read[k] for k in range(consumed)] == opened(folder).read(0, consumed).tokens.tolist()
    assert len(read) == consumed


def test_killed_processes_lose_and_repeat_nothing(packed: Callable[..., Path], tmp_path: Path) -> None:
    folder, chance = corpora(packed), random.Random(0)
    consumed, got = 0, []
    for ranks, micro_batch, times in ((2, 3, 2), (1, 4, 1), (3, 1, 2)):
        batch = ranks * micro_batch * times
        logs = [tmp_path / f"{consumed}-{rank}.log" for rank in range(ranks)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(folder), str(log)]
                + [str(number) for number in (consumed, batch, rank, ranks, micro_batch)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for rank, log in enumerate(logs)
        ]
        try:
            wait_for(logs, 3 * times, processes)
            time.sleep(chance.uniform(0, 0.05))
        finally:
            for process in processes:
                process.send_signal(signal.SIGKILL)
            for process in processes:
                process.wait()
        # What a checkpoint would hold: the steps that every rank finished.
        steps = min(len(whole(log)) // times for log in logs)
        for step in range(steps):
            got += [line for log in logs for line in whole(log)[step * times : (step + 1) * times]]
        consumed += steps * batch
    samples = [sample for line in got for sample in line.split()]
    assert samples == uninterrupted(folder, consumed)


def whole(log: Path) -> list[str]:
    """The lines that were written to their end."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.removesuffix(" end") for line in lines if line.endswith(" end")]


def wait_for(logs: list[Path], lines: int, processes: list[subprocess.Popen[bytes]]) -> None:
    until = time.monotonic() + 60
    while any(len(whole(log)) < lines for log in logs):
        assert time.monotonic() < until, "the ranks did not get going"
        assert all(process.poll() is None for process in processes), "a rank failed; its error is above"
        time.sleep(0.02)
