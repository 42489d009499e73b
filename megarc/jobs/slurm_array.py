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
from megarc.jobs.run_jobs import Job


def submit(jobs: Sequence[Job], script: Path, options: Sequence[str], place: Path) -> str:
    """Writes ``place/array.txt`` and ``place/submit.sh`` and submits those that are not finished.

    Args:
        script: launch/job.sh, which gives line i of the file named by MEGARC_SWEEP to the run's script.
        options: of sbatch; they win over the script's own.

    Returns:
        The array's job id.

    Raises:
        UserError: where there is no sbatch, or it refuses.
    """
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
    return done.stdout.strip().split(";")[0]
