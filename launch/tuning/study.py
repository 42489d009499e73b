"""`tune_batch.py --config FILE`: both halves, and the answer as a run's file."""

from __future__ import annotations

import argparse
import subprocess
import time

from megarc.atomic_write import written_atomically
from megarc.batchsize import StudyConfig, as_yaml, branch_jobs, choices, decide, find_trunk, knee, usable
from megarc.config import load
from megarc.errors import UserError
from megarc.progress import clock
from megarc.train import Lengths
from tuning.branched import branch_all, command, tell, train_trunk
from tuning.micro import read_trials


def study(arguments: argparse.Namespace) -> int:
    """What is finished of an earlier call is used again."""
    begun = time.monotonic()
    keys = load(StudyConfig, arguments.config, arguments.overrides)
    keys.place.mkdir(parents=True, exist_ok=True)
    heading("1. The computational batch: what fits and is fastest")
    search_micro(keys, arguments)
    heading("2. The critical batch: branches from one checkpoint")
    checkpoint = find_trunk(arguments.checkpoint) if arguments.checkpoint else train_trunk(keys, arguments)
    jobs = branch_jobs(checkpoint, keys)
    branch_all(keys, jobs, arguments.launcher)
    decision = decide(jobs, checkpoint, keys.tune.branches)
    tell(keys, jobs, decision)
    heading("3. The answer")
    trials, ranks, data_ranks = read_trials(keys.place / "micro.json")
    config = keys.run()
    share = min(Lengths(config).batches.size(0), decision.size) // data_ranks
    micro = knee(usable(trials, share), keys.tune.micro.knee)
    if micro is None:
        raise UserError(
            f"none of the micro-batches that fit divides a rank's {share} samples; choose a batch.size with "
            "small divisors"
        )
    path = keys.place / "tuned.yaml"
    title = (
        f"The batch of {arguments.config or 'the defaults'}, studied by launch/tune_batch.py. It runs as it stands:\n"
        f"python launch/pretrain.py --config {path}"
    )
    text = as_yaml(config, choices(config, micro, ranks, decision), title)
    with written_atomically(path) as file:
        file.write(text.encode())
    print(text)
    print(f"written to {path} after {clock(time.monotonic() - begun)}")
    return 0


def search_micro(keys: StudyConfig, arguments: argparse.Namespace) -> None:
    """In a process of its own, so that memory is counted from nothing and given back."""
    if (keys.place / "micro.json").exists():
        print(f"{keys.place / 'micro.json'} exists already (remove it to search again)")
        return
    words = [*command(arguments.launcher, "tune_batch.py"), "micro"]
    words += ["--config", str(arguments.config)] if arguments.config else []
    done = subprocess.run([*words, *arguments.overrides])
    if done.returncode:
        raise UserError(
            f"the search for the micro-batch ended with {done.returncode}; what it says stands above. Where the "
            "system killed it, memory ran out: set tune.micro.memory_gib"
        )


def heading(words: str) -> None:
    print(f"\n{words}\n{'=' * len(words)}", flush=True)
