"""Starts real ranks, as a launcher does, and waits for them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from megarc.rank_environment import free_port
from support.processes import start

WORKER = Path(__file__).with_name("worker.py")


def run_jobs(jobs, world, folder, expect_failure=False, timeout=280):
    """The jobs on ``world`` ranks; their output where all end well, or the first failing one's."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / f"jobs-{world}.json"
    listed.write_text(json.dumps(jobs))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    # What compiles starts workers and compilers of its own: not tried from a forked process.
    cold = any(
        job.get("config", {}).get("execution", {}).get("compile") and "backend" not in job for job in jobs
    )
    ranks = [
        start(
            [sys.executable, str(WORKER), str(listed)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cold=cold,
        )
        for rank in range(world)
    ]
    try:
        outputs = [rank.communicate(timeout=timeout)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    failed = [output for rank, output in zip(ranks, outputs, strict=True) if rank.returncode]
    assert bool(failed) == expect_failure, "\n".join(outputs)
    return failed[0] if failed else outputs[0]
