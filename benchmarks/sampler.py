"""How fast batches are read, how fast a run finds its place, and what both cost in memory.

    python benchmarks/sampler.py                       # about 2 minutes; results in benchmarks/results/
    python benchmarks/sampler.py --tokens 20M --folder /fast/disk

Ratios are of CPU time within one run: other work on the machine moves both sides alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from options import options

from megarc.data import DataConfig, LocalityConfig, SourceConfig, Stream, open_stream
from megarc.errors import run_script
from megarc.progress import progress
from megarc.quantity import Quantity
from megarc.window import Window

ROWS = 1024
TALK = Window(recent=512, causal=512, stride=512)
RESULTS = Path(__file__).parent / "results"
FAR = 10_000_000_000  # a sample deep in the run, where a resumed run starts


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        prefix = Path(folder) / "corpus"
        write_corpus(prefix, int(Quantity.parse(f"{arguments.tokens} tokens").amount))
        parts: dict[str, Callable[[], Any]] = {
            "batches": lambda: batches(prefix),
            "start": lambda: start(Path(arguments.sparse_folder)),
            "memory": lambda: memory(Path(folder)),
            "cold": lambda: cold(prefix),
        }
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        results: dict[str, Any] = {"machine": machine, "tokens": arguments.tokens}
        with progress("sampler", len(parts)) as bar:
            for name, measure in parts.items():
                results[name] = measure()
                bar.advance(1, last=name)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sampler.json").write_text(json.dumps(results, indent=1, default=str) + "\n")
    draw(results, RESULTS / "sampler.png")
    print(json.dumps(results, indent=1, default=str))


# ---- the questions


def batches(prefix: Path) -> dict[str, Any]:
    """CPU microseconds a sample, warm: windows of 1025 tokens, ours beside Megatron's getitem + collate."""
    import torch
    from sampler_peer import collated, peer

    torch.set_num_threads(1)
    name, get = peer(prefix, ROWS, samples=200_000)
    stream, apart = opened(prefix), opened(prefix, documents="isolate")
    found: dict[str, Any] = {"peer": name}
    for batch, times in ((8, 300), (64, 60), (512, 10)):
        out = np.empty((batch, ROWS + 1), dtype=np.int32)
        ours = _per_sample(lambda k, batch=batch, out=out: stream.read(k, batch, out), batch, 10 * times)
        isolated = _per_sample(lambda k, batch=batch, out=out: apart.read(k, batch, out), batch, times)
        theirs = _per_sample(lambda k, batch=batch: collated(get, range(k, k + batch)), batch, times)
        found[str(batch)] = {
            "ours_us": ours,
            "ours_isolate_us": isolated,
            "peer_us": theirs,
            "ratio": theirs / ours,
        }
    return found


def start(folder: Path) -> dict[str, Any]:
    """Milliseconds to open 15 trillion tokens in 20 billion documents and read a batch, at 0 and far in.

    The files are holes (30 TB and 400 GB of nothing), and there is no manifest: its digest is worked out too.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        prefix = Path(place) / "web"
        write_sparse(prefix, tokens=15 * 10**12, documents=2 * 10**10)
        before = _files(Path(place))
        found: dict[str, Any] = {"windows": len(opened(prefix).sources[0])}
        for name, first in (("first_batch_ms", 0), ("resume_ms", FAR)):
            times = []
            for _ in range(5):
                begin = time.perf_counter()
                opened(prefix).read(first, 64)
                times.append(1e3 * (time.perf_counter() - begin))
            found[name] = sorted(times)
        found["files_written"] = len(_files(Path(place)) - before)
    return found


def memory(folder: Path) -> dict[str, Any]:
    """Resident memory while windows from all over a corpus of 100 GB are read: private, and of the file."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        prefix = Path(place) / "large"
        write_sparse(prefix, tokens=50 * 10**9, documents=6 * 10**7)
        stream = opened(prefix)
        found: dict[str, Any] = {"file_gb": 100, "after": []}
        for begin in range(0, 40_960, 8192):
            for k in range(begin, begin + 8192, 512):
                stream.read(k, 512)
            found["after"].append({"windows": begin + 8192, **_resident()})
    return found


def cold(prefix: Path) -> dict[str, Any]:
    """Wall milliseconds a batch of 64 when nothing is in the page cache: shuffled everywhere, and near."""
    found: dict[str, Any] = {}
    data = prefix.with_suffix(".bin")
    for name, locality in (("everywhere", None), ("near", LocalityConfig(block=512, mixed=8))):
        stream = opened(prefix, locality=locality)
        _forget(data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_inblock
        begin = time.perf_counter()
        for k in range(0, 64 * 64, 64):
            stream.read(k, 64)
        found[name] = {
            "ms_a_batch": 1e3 * (time.perf_counter() - begin) / 64,
            "mb_read": (resource.getrusage(resource.RUSAGE_SELF).ru_inblock - before) * 512 / 2**20,
            "mb_wanted": 64 * 64 * TALK.stride * 2 / 2**20,
        }
        del stream
    return found


# ---- corpora


def opened(prefix: Path, **keys: Any) -> Stream:
    """A training stream of the talk's windows over the corpus."""
    config = DataConfig(train=[SourceConfig(path=prefix)], **keys)
    return open_stream(config, "train", TALK, seed=0)


def write_corpus(prefix: Path, tokens: int) -> None:
    """Random tokens 1..31999 in documents of 20 to 1500 tokens, as .bin and .idx."""
    random = np.random.default_rng(0)
    lengths = random.integers(20, 1500, size=tokens // 760)
    _write_idx(prefix.with_suffix(".idx"), lengths)
    with prefix.with_suffix(".bin").open("wb") as file:
        for length in np.array_split(lengths, 16):
            random.integers(1, 32_000, size=int(length.sum()), dtype=np.uint16).tofile(file)


def write_sparse(prefix: Path, tokens: int, documents: int) -> None:
    """A corpus of zeros that takes no room: .bin and .idx are holes, but for what opening it checks."""
    last = tokens // documents
    with prefix.with_suffix(".idx").open("wb") as file:
        file.write(_idx_header(documents))
        for place, kind, value in (
            (4 * documents - 4, "<i", last),  # length of the last document
            (12 * documents - 8, "<q", 2 * (tokens - last)),  # where it begins, in bytes
            (20 * documents, "<q", documents),  # how many there are
        ):
            file.seek(len(_idx_header(documents)) + place)
            file.write(struct.pack(kind, value))
    with prefix.with_suffix(".bin").open("wb") as file:
        file.truncate(tokens * 2)


def _write_idx(path: Path, lengths: np.ndarray[Any, Any]) -> None:
    begins = np.cumsum(lengths) - lengths
    with path.open("wb") as file:
        file.write(_idx_header(len(lengths)))
        for column, kind in ((lengths, "<i4"), (2 * begins, "<i8"), (np.arange(len(lengths) + 1), "<i8")):
            file.write(column.astype(kind).tobytes())


def _idx_header(documents: int) -> bytes:
    return b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, documents, documents + 1)


# ---- measuring


def _per_sample(read: Callable[[int], Any], batch: int, times: int) -> float:
    """CPU microseconds a sample of ``times`` batches, after as many to warm up."""
    for warming in (True, False):
        begin = time.process_time()
        for turn in range(times):
            read(turn * batch)
        if not warming:
            return 1e6 * (time.process_time() - begin) / (times * batch)
    raise AssertionError


def _files(folder: Path) -> set[tuple[str, int, int]]:
    """Name, size and time of change of every file."""
    return {(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir()}


def _resident() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {"private_mb": int(fields["RssAnon"]) / 1024, "file_mb": int(fields["RssFile"]) / 1024}


def _forget(path: Path) -> None:
    """Drops the file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def draw(results: dict[str, Any], path: Path) -> None:
    """Batches beside the peer's, as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [size for size in results["batches"] if size != "peer"]
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for offset, (who, label) in enumerate((("peer_us", results["batches"]["peer"]), ("ours_us", "megarc"))):
        heights = [results["batches"][size][who] for size in sizes]
        bars = axes.bar(np.arange(len(sizes)) + 0.4 * offset, heights, width=0.38, label=label)
        axes.bar_label(bars, fmt="%.3g")
    axes.set_yscale("log")
    axes.set_ylim(0.5, 150)
    axes.set_xticks(np.arange(len(sizes)) + 0.2, [f"batch {size}" for size in sizes])
    axes.set_ylabel("CPU µs a window of 1025 tokens")
    axes.set_title("From tokens on disk (page cache warm) to a batch")
    axes.legend(loc="upper center", ncols=2, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--tokens", default="300M", help="of the corpus that is written and read")
    parser.add_argument("--folder", default=None, help="where; default: the system's folder for such things")
    parser.add_argument("--sparse-folder", default="/dev/shm", help="where a file of 30 TB of nothing may be")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
