"""Runs of chaos.py as jobs of a real SLURM of two nodes on this machine, put back into the queue while they train."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from types import TracebackType

import yaml
from chaos_machine import ROOT, steps_done
from faults import LAYOUTS, STEPS
from system import slurm

SLURM = "slurm"  # the layout's name in the table
SAME = "dp2-z2"  # the same ranks without SLURM
_SECONDS = 240.0
_PAUSE = [{"do": "slow", "at": "forward", "rank": 0, "seconds": 0.1}]  # in each step: time to strike


def without_slurm() -> str:
    """Why there is no SLURM here; "": there is."""
    return slurm.absent()


class SlurmRuns:
    """One cluster for all of them, from the first run on."""

    def __init__(self) -> None:
        self._cluster: slurm.Slurm | None = None

    def __enter__(self) -> SlurmRuns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cluster is not None:
            self._cluster.__exit__()

    def play(self, folder: Path, requeues: int, chance: random.Random) -> tuple[int, str]:
        """How often the job was requeued, and what went wrong, or ""."""
        if self._cluster is None:
            self._cluster = slurm.Slurm().__enter__()
        job, met = self._submit(folder), 0
        for number in range(requeues):
            # A part of the run for each, so that the next one still finds steps to be done.
            step = (number * STEPS + chance.randrange(1, STEPS)) // (requeues + 1) + 1
            if not self._until(job, lambda goal=step: steps_done(folder) >= goal):
                break
            self._cluster.run("scontrol", "requeue", job)
            met += 1
            if not self._until(job, lambda count=met: self._cluster.facts(job)["Restarts"] == str(count)):
                return met, f"the job was not started again: {self._cluster.facts(job)}"
        ended = self._cluster.wait(job, _SECONDS)
        return met, "" if ended == ("COMPLETED", "0:0") else f"the job ended with {ended}"

    def _submit(self, folder: Path) -> str:
        assert self._cluster is not None
        keys = Path(f"{folder}.yaml")
        keys.write_text(yaml.safe_dump(LAYOUTS[SAME].tree(folder)))
        return self._cluster.submit(
            *("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0"),
            *("--output", f"{folder}-output", ROOT / "launch" / "job.sh", "--config", keys),
            cwd=folder.parent,
            MEGARC_PYTHON=sys.executable,
            MEGARC_SAMPLES=f"{folder}-samples",
            MEGARC_FAULTS=json.dumps(_PAUSE),
            PATH=os.environ["PATH"],
        )

    def _until(self, job: str, true) -> bool:
        """False where the job's end, or the end of patience, comes first."""
        assert self._cluster is not None
        end = time.monotonic() + _SECONDS
        while not true():
            if time.monotonic() > end or not self._cluster.run("squeue", "-h", "-j", job, check=False):
                return False
            time.sleep(0.3)
        return True
