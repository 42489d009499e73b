"""How long a step waits for a checkpoint, and how fast it is written and loaded, beside what the disk does.

    python benchmarks/checkpoint.py                       configs/models/35M.yaml, one process
    python benchmarks/checkpoint.py --model 124M --folder /fast/disk

In each round, one after the other: the same bytes in the same number of files written and read without a checkpoint
(benchmarks/disk_ceiling.py), their digests alone, a bare copy in memory, and our save and load. What is loaded is not
in the page cache. The ceiling is the faster of the two ways to the disk; beside it stands the slower of that and of the
digests, which take the processor. Written to benchmarks/results/checkpoint.json.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from disk_ceiling import AT_ONCE, digest, forget, memory, read, write
from options import options

from megarc.config import load
from megarc.data import open_stream
from megarc.errors import run_script
from megarc.parallel import Groups, connect, disconnect, meet
from megarc.rank_environment import read_rank_environment
from megarc.report import table
from megarc.science import MAKERS
from megarc.train import RunConfig, resolve
from megarc.train.checkpoint import Level, Saver, Standing, latest
from megarc.train.checkpoint import load as load_checkpoint
from megarc.train.checkpoint.fragments import buffers, written
from megarc.train.engine import Engine, build_engine

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = options(__doc__, "checkpoint.json")
    parser.add_argument("--model", default="35M", help="a file of configs/models (35M)")
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    parser.add_argument("--rounds", type=int, default=5, help="after one that makes the buffers (5)")
    arguments = parser.parse_args()
    window = [
        "window.recent=24",
        "window.causal=16",
        "window.stride=16",
        "data.train=[{kind: pointer_chase}]",
    ]
    config = load(RunConfig, ROOT / "configs" / "models" / f"{arguments.model}.yaml", window)
    groups = connect(meet(read_rank_environment()), "cpu")
    stream = open_stream(config.data, "train", config.window.build(), 0, makers=MAKERS)
    engine = build_engine(resolve(config, stream, groups.topology), groups)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        rounds = Rounds(engine, groups, Path(scratch))
        for _ in range(arguments.rounds + 1):
            rounds.take()
    disconnect()
    facts = {"model": arguments.model, **machine(), **rounds.facts()}
    arguments.out.write_text(json.dumps(facts, indent=2) + "\n")
    titles = ["", "GB/s, best", "GB/s, median", "CPU-seconds"]
    print(table(titles, [[name, *map("{:.2f}".format, row.values())] for name, row in facts["rows"].items()]))
    for name, ratio in facts["ratios"].items():
        print(f"{name}: {ratio['best']:.2f} (best rounds), {ratio['median']:.2f} (medians)")
    return 0


class Rounds:
    """Each way to move the same bytes, in turn; the first round is not counted."""

    def __init__(self, engine: Engine, groups: Groups, folder: Path) -> None:
        self.engine, self.folder = engine, folder / "ours"
        self.folder.mkdir()
        self.saver, self.level = Saver(groups), Level.shared(self.folder, groups, keep=1)
        self.state = [tensor for _, tensor in buffers(written(engine, self.level.members))]
        self.copies = [torch.empty_like(tensor) for tensor in self.state]
        self.bytes = sum(tensor.numel() * tensor.itemsize for tensor in self.state)
        self.content, self.blocks = memory(), [memory() for _ in range(AT_ONCE)]
        self.bare = folder / "bare"
        self.bare.mkdir()
        self.seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.step = 0

    def take(self) -> None:
        self.step += 1
        self.time("bare copy in memory", self.copy)
        self.time("a step waits", self.save)
        self.time("written, synced, digested", self.saver.wait)
        found = latest(self.folder)
        assert found is not None
        ours = {found.folder / name: facts["size"] for name, facts in found.manifest["files"].items()}
        tensors = {path: size for path, size in ours.items() if path.suffix == ".safetensors"}
        beside = {self.bare / path.name: size for path, size in tensors.items()}
        self.time("disk: written directly", lambda: write(beside, self.content, direct=True))
        self.time("disk: written through the page cache", lambda: write(beside, self.content, direct=False))
        self.time("digests alone", lambda: digest(beside, self.content))
        for name, direct in (("directly", True), ("through the page cache", False)):
            forget(list(beside))
            self.time(f"disk: read {name}", lambda direct=direct: read(beside, self.blocks, direct=direct))
        for path in beside:
            path.unlink()
        forget(list(ours))
        self.time("loaded, digests compared", lambda: load_checkpoint(found, self.engine))

    def copy(self) -> None:
        for copy, tensor in zip(self.copies, self.state, strict=True):
            copy.copy_(tensor)

    def save(self) -> None:
        self.saver.save(self.engine, Standing(self.step, self.step), {"config": {}}, self.level)

    def time(self, name: str, what: Callable[[], object]) -> None:
        used, begun = time.process_time(), time.perf_counter()
        what()
        self.seen[name].append((time.perf_counter() - begun, time.process_time() - used))

    def facts(self) -> dict[str, Any]:
        rows = {}
        for name, times in self.seen.items():
            seconds = [wall for wall, _ in times[1:]]
            rows[name] = {
                "best": self.bytes / min(seconds) / 1e9,
                "median": self.bytes / median(seconds) / 1e9,
                "cpu_seconds": median(cpu for _, cpu in times[1:]),
            }
        ceilings = {"written, synced, digested": "disk: written", "loaded, digests compared": "disk: read"}
        ratios: dict[str, dict[str, float]] = {}
        for ours, disk in ceilings.items():
            both = [row for name, row in rows.items() if name.startswith(disk)]
            for kind in ("best", "median"):
                ceiling, rate = max(row[kind] for row in both), rows[ours][kind]
                ratios.setdefault(f"{ours}, beside the disk", {})[kind] = rate / ceiling
                slower = min(ceiling, rows["digests alone"][kind])
                ratios.setdefault(f"{ours}, beside the slower of disk and digests", {})[kind] = rate / slower
        ratios["a step waits, beside a bare copy"] = {
            kind: rows["a step waits"][kind] / rows["bare copy in memory"][kind]
            for kind in ("best", "median")
        }
        return {"bytes": self.bytes, "rounds": self.step - 1, "rows": rows, "ratios": ratios}


def machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
            "python": platform.python_version()}  # fmt: skip


if __name__ == "__main__":
    run_script(main)
