"""How fast a corpus in an object store is read, beside the same corpus on a disk.

    python benchmarks/store_reading.py                 # under a minute; results in benchmarks/results/
    python benchmarks/store_reading.py --tokens 64M --out /tmp/reading.json

Warm: the server is moto's, all blocks are in the local cache and all pages in memory; rounds of disk and store
alternate, and the best of each counts. Cold: the cache is empty, the store is one in memory that answers every request
after a fifth of a second, and a step of training takes half of that; blocks are asked for some steps ahead, or not.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from options import options

from megarc.config import build
from megarc.corpus import IndexedWriter
from megarc.data import Ahead, DataConfig, Stream, announcing, open_stream
from megarc.errors import run_script
from megarc.object_upload import put_file
from megarc.quantity import Quantity
from megarc.rank_environment import free_port
from megarc.window import Window

WINDOW = Window(recent=512, causal=512, stride=512)
BATCH = 64
BUCKET = "s3://reading"
STEP_SECONDS, LATENCY_SECONDS = 0.1, 0.2
COLD_STEPS = 20


def main() -> int:
    parser = options(__doc__, "store_reading.json")
    parser.add_argument("--tokens", default="32M", help="of the corpus (32M: 64 MB)")
    parser.add_argument("--rounds", type=int, default=9, help="of each, alternating (9)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _Server():
        prefix = Path(folder) / "corpus"
        _write(prefix, int(Quantity.parse(f"{arguments.tokens} tokens").amount))
        found = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "tokens": arguments.tokens,
            "warm": warm(prefix, Path(folder) / "cache", arguments.rounds),
            "cold": {f"{ahead} steps ahead": cold(prefix, Path(folder), ahead) for ahead in (0, 1, 4, 8)},
        }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return 0


def warm(prefix: Path, cache: Path, rounds: int) -> dict[str, float]:
    """Microseconds a window of the same batches, from the disk and through the full cache; and the ratio of speeds."""
    near, far = _stream(str(prefix), cache), _stream(f"{BUCKET}/corpus", cache)
    batches = 100
    for first in range(0, 40 * batches * BATCH, BATCH):  # all blocks, and all pages
        far.read(first, BATCH)
    best = {"disk": float("inf"), "store": float("inf")}
    for number in range(rounds):
        for name, stream in (("disk", near), ("store", far)):
            begin = time.process_time()
            for first in range(number * batches * BATCH, (number + 1) * batches * BATCH, BATCH):
                stream.read(first, BATCH)
            best[name] = min(best[name], (time.process_time() - begin) / (batches * BATCH))
    return {
        "disk_us": round(best["disk"] * 1e6, 2),
        "store_us": round(best["store"] * 1e6, 2),
        "speed_of_disk": round(best["disk"] / best["store"], 3),
    }


def cold(prefix: Path, folder: Path, ahead: int) -> dict[str, float]:
    """Seconds that a loop of steps waits for its batches, from an empty cache."""
    _fill_distant_store(prefix)
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        stream = _stream("distant://reading/corpus", Path(cache), block_kib=64)
        requests: Any = ((step * 8, 8) for step in range(COLD_STEPS))
        if ahead:
            requests = announcing(requests, stream.announce, ahead)
        waited = 0.0
        with Ahead(stream.read, requests) as batches:
            for _ in range(COLD_STEPS):
                begin = time.perf_counter()
                next(batches)
                waited += time.perf_counter() - begin
                time.sleep(STEP_SECONDS)
    return {"steps": COLD_STEPS, "step_s": STEP_SECONDS, "waited_s": round(waited, 2)}


def _fill_distant_store(prefix: Path) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Distant(MemoryFileSystem):  # type: ignore[misc]
        protocol = "distant"

        @classmethod
        def _strip_protocol(cls, path: str) -> Any:
            return super()._strip_protocol(path.replace("distant://", "memory://"))

        def info(self, path: str, **keys: Any) -> Any:
            time.sleep(LATENCY_SECONDS)
            return super().info(path, **keys)

        def cat_ranges(self, *arguments: Any, **keys: Any) -> Any:
            time.sleep(LATENCY_SECONDS)  # all at once
            return super().cat_ranges(*arguments, **keys)

    fsspec.register_implementation("distant", Distant, clobber=True)
    for suffix in ("idx", "bin"):
        fsspec.filesystem("memory").pipe(f"/reading/corpus.{suffix}", Path(f"{prefix}.{suffix}").read_bytes())


def _stream(path: str, cache: Path, block_kib: int = 1024) -> Stream:
    store = {"folder": str(cache), "gib": 1, "block_kib": block_kib}
    tree = {"train": [{"path": path}], "store_cache": store}
    return open_stream(build(DataConfig, tree, "the benchmark"), "train", WINDOW, 0)


def _write(prefix: Path, tokens: int) -> None:
    """A corpus of random tokens, on the disk and in the store."""
    random = np.random.default_rng(0)
    with IndexedWriter(prefix, np.uint16) as writer:
        for _ in range(tokens // 4096):
            writer.add(random.integers(0, 50000, 4096).astype(np.uint16))
        writer.finish()
    for suffix in ("idx", "bin"):
        path = Path(f"{prefix}.{suffix}")
        put_file(f"{BUCKET}/corpus.{suffix}", path, path.stat().st_size)


class _Server:
    """moto's, with the environment that finds it."""

    def __enter__(self) -> None:
        import boto3

        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        endpoint = f"http://127.0.0.1:{port}"
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
        }
        for _ in range(300):
            try:
                boto3.client("s3").create_bucket(Bucket=BUCKET.rpartition("/")[2])
                return
            except Exception:
                time.sleep(0.2)
        raise RuntimeError("moto's server did not start")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    run_script(main)
