"""Runs as a SLURM array: task i takes line i of a file, through launch/job.sh."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from megarc.atomic_write import written_atomically
from megarc.errors import UserError, shortened
from megarc.jobs.run_jobs import Job, words_of


def sbatch_options(text: str) -> list[str]:
    """The words of the flag --submit.

    Raises:
        UserError: where they are no options: argparse gives the flag the next word, which may be a key of the study.
    """
    words = words_of(text, "--submit")
    if words and not words[0].startswith("-"):
        raise UserError(
            f"--submit takes options of sbatch, and '{words[0]}' is none; write keys before --submit, or --submit= "
            "where it has no options"
        )
    return words


def submit(jobs: Sequence[Job], script: Path, options: Sequence[str], place: Path) -> str:
    """Writes ``place/array.txt`` and ``place/submit.sh`` and submits those that are not finished.

    Args:
        script: launch/job.sh, which gives line i of the file named by MEGARC_SWEEP to the run's script.
        options: of sbatch; they win over the script's own.

    Returns:
        The array's job id.

    Raises:
        UserError: where there is no sbatch, it refuses, or the array before is still in the queue: its tasks would
            read the new lines.
    """
    kept = place / "array.job"
    _refuse_while_queued(kept)
    for job in jobs:
        job.write()
    waiting = [job for job in jobs if not job.finished()]
    lines, command_file = place / "array.txt", place / "submit.sh"
    with written_atomically(lines) as file:
        file.write("".join(f"--config {shlex.quote(str(job.file.resolve()))}\n" for job in waiting).encode())
    log = f"--output={place.resolve()}/slurm-%A_%a.log"
    command = ["sbatch", "--parsable", f"--array=1-{len(waiting)}", log, *options, str(script.resolve())]
    python = os.environ.get("MEGARC_PYTHON", sys.executable)
    environment = {"MEGARC_SWEEP": str(lines.resolve()), "MEGARC_PYTHON": python}
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    with written_atomically(command_file) as file:
        file.write(f"#!/usr/bin/env bash\n{' '.join(words)} {shlex.join(command)}\n".encode())
    try:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            f"there is no sbatch here; {command_file} is written: run it on a machine with SLURM, or leave --submit out"
        ) from None
    if done.returncode:
        raise UserError(f"sbatch refused: {shortened(done.stderr.strip())}; the command is in {command_file}")
    number = done.stdout.strip().split(";")[0]
    with written_atomically(kept) as file:
        file.write(f"{number}\n".encode())
    return number


def _refuse_while_queued(kept: Path) -> None:
    """``kept`` holds the number of the array that was submitted last."""
    try:
        number = kept.read_text(encoding="utf-8").strip()
        queue = subprocess.run(["squeue", "-h", "-r", "-j", number], capture_output=True, text=True)
    except OSError:
        return  # no array before, or no SLURM here
    if tasks := len(queue.stdout.splitlines()):  # a job that SLURM has forgotten gives none
        raise UserError(
            f"job {number} of {kept.parent} still has {tasks} tasks in the queue; wait for them, or end them with "
            f"`scancel {number}`"
        )
