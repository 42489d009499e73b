"""What a start costs at a thousand ranks, before the first step: the meeting for real, the model's part as a dry run.

    python benchmarks/start.py --ranks 1000 2000 4000

Every rank of the meeting is a thread here, with its own connection to rank 0's store. What a rank does by itself (the
digest of the code, the versions of packages) is measured once: on a cluster each rank has its own core for it. All
else shares this machine's cores, so a cluster is faster. The part of the model is built with fake tensors in a fake
world. Written to benchmarks/results/start.json.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from options import options

from megarc.config import load
from megarc.parallel.rank_check import _own_answer, roll_call
from megarc.parallel.rendezvous import Meeting
from megarc.plan import dry_run
from megarc.rank_environment import ALONE, RankEnvironment, free_port
from megarc.train import RunConfig

PATIENCE = timedelta(minutes=5)
RESULTS = Path(__file__).parent / "results" / "start.json"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--config", type=Path, default=Path("configs/clusters/175B-1024.yaml"))
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    start = time.process_time()
    _own_answer(Meeting(ALONE, None, PATIENCE), "cpu")
    own = time.process_time() - start
    config = load(RunConfig, arguments.config, ["model.vocabulary=50257"])
    start = time.perf_counter()
    dry_run(config, 1024, 512)
    built = time.perf_counter() - start
    figures = {
        "a rank's own answer, CPU-seconds": round(own, 4),
        "a rank's part of a 175B model on 1,024 ranks, built and run with fake tensors, seconds": round(
            built, 2
        ),
        "meetings": {ranks: meet_all(ranks) for ranks in arguments.ranks},
    }
    print(json.dumps(figures, indent=2))
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def meet_all(ranks: int) -> dict[str, float]:
    """A meeting and its roll call: seconds, CPU-seconds of all ranks and of one, and seconds in which ranks connect."""
    address = ("127.0.0.1", free_port())
    listening = threading.Event()
    connected: list[float] = []

    def one(rank: int) -> None:
        if rank:
            listening.wait()
        meeting = Meeting(RankEnvironment(rank, ranks, rank % 8, "slurm"), address, PATIENCE)
        connected.append(time.perf_counter())
        listening.set()
        meeting.share(lambda: "configuration" * 100)
        roll_call(meeting, "cpu", ranks)

    start, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(max_workers=ranks) as pool:
        list(pool.map(one, range(ranks)))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": round(seconds, 2),
        "until all are connected": round(max(connected) - start, 2),
        "CPU-seconds": round(cpu, 2),
        "CPU-milliseconds a rank": round(1e3 * cpu / ranks, 2),
    }


if __name__ == "__main__":
    main()
