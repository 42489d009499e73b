"""Runs as jobs: each a normal run from a file of its own, started once and gone on with until it is finished."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from megarc.atomic_write import written_atomically
from megarc.config import load, to_yaml
from megarc.errors import UserError, ended_by_sigterm
from megarc.progress import progress
from megarc.rank_environment import free_port
from megarc.train import RunConfig, RunFolder

RunT = TypeVar("RunT")

_SECONDS_BETWEEN_LOOKS = 0.3
_LINES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Job:
    """A run and the file that it is started from, which lies beside its folder."""

    config: RunConfig
    steps: int  # at which it ends
    first: int = 0  # from which it begins

    @property
    def file(self) -> Path:
        return self._beside(".yaml")

    @property
    def log(self) -> Path:
        return self._beside(".log")

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.config.folder)

    def _beside(self, suffix: str) -> Path:
        # Not with_suffix, which would take the ".5-s0" of "rate-0.5-s0" for a suffix.
        return self.config.folder.with_name(self.config.folder.name + suffix)

    def finished(self) -> bool:
        """Whether it has reached its end. A run that ended earlier, of another study, is not this one's."""
        try:
            state = orjson.loads(self.folder.state.read_bytes())
            return state["state"] == "finished" and state.get("step", 0) >= self.steps
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return False

    def step(self) -> int:
        """The last step in its metrics."""
        try:
            return int(orjson.loads(self.folder.metrics.read_bytes().splitlines()[-1])["step"])
        except (OSError, IndexError, orjson.JSONDecodeError, KeyError, TypeError):
            return self.first

    def write(self) -> None:
        """Writes the file, or checks that it says the same as the one that is there.

        Raises:
            UserError: as ``check``.
        """
        self.check()
        with written_atomically(self.file) as file:
            file.write(to_yaml(self.config).encode())

    def check(self) -> None:
        """Refuses the file of another run: a study is not gone on with, or reported, under other keys.

        Raises:
            UserError: where the file is there and holds other keys.
        """
        if self.file.exists() and load(RunConfig, self.file) != self.config:
            raise UserError(
                f"{self.file} is of a study with other keys; give the study another folder, or remove "
                f"{self.file.parent} to start again"
            )


def start_of(launcher: str, script: Path) -> list[str]:
    """The words that start a script: those of ``launcher``, or this Python.

    Raises:
        UserError: where ``launcher`` has a quote that does not end.
    """
    return [*(words_of(launcher, "--launcher") or [sys.executable]), str(script)]


def words_of(text: str, flag: str) -> list[str]:
    """The words of a flag's value, as a shell splits them.

    Raises:
        UserError: where it has a quote that does not end.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{flag} {text!r} cannot be split into words: {error}") from None


def run_all(
    jobs: Sequence[Job],
    command: Sequence[str],
    at_once: int,
    what: str,
    failed: Callable[[Job, UserError], None] | None = None,
) -> None:
    """Runs those that are not finished, ``at_once`` at a time; each is ``command --config FILE``.

    Args:
        command: where a word has ``{port}``, a free one stands in its place.
        failed: called with a run that does not finish; the others go on. None: such a run is an error.

    Raises:
        UserError: where one does not finish; what the others reached stays, and the same call goes on.
    """
    for job in jobs:
        job.write()
    waiting = [job for job in jobs if not job.finished()]
    work = sum(job.steps - job.first for job in waiting)
    shown = sum(job.step() - job.first for job in waiting)
    with progress(what, work, done=shown, unit="steps", quiet=not waiting) as bar:

        def look(running: Sequence[Job]) -> None:
            nonlocal shown
            done = sum(job.step() - job.first for job in waiting)
            bar.advance(done - shown, runs=f"{sum(job.finished() for job in jobs)}/{len(jobs)}")
            shown = done

        def ended(job: Job, process: subprocess.Popen[bytes]) -> bool:
            try:
                return has_finished(process, job.finished, job.config.folder, job.log)
            except UserError as error:
                if failed is None:
                    raise
                failed(job, error)
                return True

        side_by_side(waiting, lambda job: _start(job, command, at_once), ended, at_once, look)


def side_by_side(
    waiting: Sequence[RunT],
    start: Callable[[RunT], subprocess.Popen[bytes]],
    ended: Callable[[RunT, subprocess.Popen[bytes]], bool],
    at_once: int,
    look: Callable[[Sequence[RunT]], None],
) -> None:
    """Starts ``at_once`` of them at a time until all have ended; ``look`` gets those that run, now and then.

    If one fails, or this process gets SIGTERM, those that run are ended; they save first.
    """
    todo = list(waiting)
    running: list[tuple[RunT, subprocess.Popen[bytes]]] = []
    with ended_by_sigterm():
        try:
            while todo or running:
                while todo and len(running) < at_once:
                    running.append((todo[0], start(todo.pop(0))))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                running = [(run, process) for run, process in running if not ended(run, process)]
                look([run for run, _ in running])
        finally:
            for _, process in running:
                process.terminate()
            for _, process in running:
                process.wait()


def has_finished(
    process: subprocess.Popen[bytes], finished: Callable[[], bool], folder: Path, log: Path
) -> bool:
    """Whether a run's process has ended.

    Raises:
        UserError: where it has, and the run is not finished; with the end of its log.
    """
    if process.poll() is None:
        return False
    if not finished():
        tail = log.read_text(errors="replace").strip().splitlines()[-_LINES_SHOWN:]
        raise UserError(f"the run {folder} did not finish; the end of {log}:\n" + "\n".join(tail))
    return True


def _start(job: Job, command: Sequence[str], at_once: int) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // at_once)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    words = [word.replace("{port}", str(free_port())) for word in command]
    try:
        with job.log.open("ab") as log:
            return subprocess.Popen(
                [*words, "--config", str(job.file)], stdout=log, stderr=log, env=environment
            )
    except OSError as error:
        raise UserError(f"the run {job.config.folder} cannot be started by {words[0]!r}: {error}") from None
