"""What a start costs at a thousand ranks, before the first step: the meeting for real, the model's part as a dry run.

    python benchmarks/start.py --ranks 1024

Every rank of the meeting is a thread here, with its own connection to rank 0's store; all share this machine's cores,
so a cluster, where each has its own, is faster. The part of the model is built with fake tensors in a fake world.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from options import options

from megarc.config import load
from megarc.parallel.rank_check import code_digest, roll_call
from megarc.parallel.rendezvous import Meeting
from megarc.plan import dry_run
from megarc.rank_environment import RankEnvironment, free_port
from megarc.train import RunConfig

RESULTS = Path(__file__).parent / "results" / "start.json"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--config", type=Path, default=Path("configs/clusters/175B-1024.yaml"))
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    ranks = arguments.ranks
    start = time.perf_counter()
    code_digest()
    digest = time.perf_counter() - start
    config = load(RunConfig, arguments.config, ["model.vocabulary=50257"])
    start = time.perf_counter()
    dry_run(config, ranks, ranks // 2)
    built = time.perf_counter() - start
    figures = {
        "ranks": ranks,
        "meeting and roll call, seconds": round(meet_all(ranks), 2),
        "of which digest of the code, seconds a rank": round(digest, 4),
        "this rank's part built and run with fake tensors, seconds": round(built, 2),
    }
    print(json.dumps(figures, indent=2))
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def meet_all(ranks: int) -> float:
    address = ("127.0.0.1", free_port())

    def one(rank: int) -> None:
        meeting = Meeting(RankEnvironment(rank, ranks, rank % 8, "slurm"), address, timedelta(minutes=3))
        meeting.share(lambda: "configuration" * 100)
        roll_call(meeting, "cpu", ranks)

    start = time.perf_counter()
    with ThreadPoolExecutor(max_workers=ranks) as pool:
        list(pool.map(one, range(ranks)))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
