"""`tune_batch.py branches`: the critical batch at a checkpoint, by training on from it at several batches."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import orjson

from megarc.atomic_write import written_atomically
from megarc.batchsize import Decision, StudyConfig, branch_jobs, decide, find_trunk, trunk_job
from megarc.config import load
from megarc.jobs import Job, run_all, sbatch_options, start_of, submit
from megarc.report import branches as picture
from megarc.report import table
from megarc.train import Checkpoint

LAUNCH = Path(__file__).resolve().parents[1]


def branches(arguments: argparse.Namespace) -> int:
    """Runs what is not finished, or submits it; where all is finished, decides."""
    study = load(StudyConfig, arguments.config, arguments.overrides)
    checkpoint = find_trunk(arguments.checkpoint) if arguments.checkpoint else train_trunk(study, arguments)
    jobs = branch_jobs(checkpoint, study)
    waiting = [job for job in jobs.values() if not job.finished()]
    if waiting and arguments.submit is not None:
        number = submit(waiting, LAUNCH / "job.sh", sbatch_options(arguments.submit), study.place)
        print(
            f"submitted as job {number}, {len(waiting)} tasks; give the same command again when they are done"
        )
        return 0
    branch_all(study, jobs, arguments.launcher)
    tell(study, jobs, decide(jobs, checkpoint, study.tune.branches))
    return 0


def train_trunk(study: StudyConfig, arguments: argparse.Namespace) -> Checkpoint:
    """The run as far as the place where branches leave it."""
    job = trunk_job(study)
    run_all([job], command(arguments.launcher), 1, "trunk")
    return find_trunk(job.config.folder)


def branch_all(study: StudyConfig, jobs: dict[float, Job], launcher: str) -> None:
    """Here, some at a time."""
    run_all(list(jobs.values()), command(launcher), study.tune.branches.at_once, "branches")


def command(launcher: str, script: str = "pretrain.py") -> list[str]:
    """How a script is started: ``launcher``, or this Python."""
    return start_of(launcher, LAUNCH / script)


def tell(study: StudyConfig, jobs: dict[float, Job], decision: Decision) -> None:
    """Table, picture, decision, and a file for programs."""
    rows = [
        [f"{multiple:g}", jobs[multiple].config.batch.size, f"{jobs[multiple].config.optimizer.lr:.4g}",
         jobs[multiple].steps - jobs[multiple].first, f"{loss:.4f}", "<- critical" * (multiple == decision.multiple)]
        for multiple, loss in decision.losses.items()
    ]  # fmt: skip
    print(table(["times", "batch", "peak rate", "steps", "nats/token", ""], rows))
    bound = "" if decision.bounded else " at least: no branch is worse, so try larger multiples"
    bound = bound or ("" if decision.smaller else " at most: any larger is worse, and no smaller was tried")
    print(f"critical batch at sample {decision.samples}: {decision.size} samples{bound}")
    with written_atomically(study.place / "branches.json") as file:
        facts = {**asdict(decision), "losses": {f"{k:g}": loss for k, loss in decision.losses.items()}}
        file.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    path = study.place / "branches.png"
    picture(
        decision.losses, round(decision.size / decision.multiple), decision.multiple, decision.tolerance, path
    )
    print(f"picture: {path}")
