"""The arms: runs that differ in their window alone, two at a time, each through the deepspeed launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megarc.batchsize import has_finished, side_by_side
from megarc.config import load
from megarc.progress import Bar, progress
from megarc.rank_environment import free_port
from megarc.train import Lengths, RunConfig, RunFolder

_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Arm:
    """One run: ``label`` is how tables and plots call it."""

    folder: Path
    label: str
    config: Path
    overrides: tuple[str, ...] = ()

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)

    @property
    def keys(self) -> list[str]:
        return [*self.overrides, f"folder={self.folder}"]

    def finished(self) -> bool:
        return self.run.state.exists() and json.loads(self.run.state.read_bytes())["state"] == "finished"

    def steps_done(self) -> tuple[int, float | None]:
        """The last step that it told, and its loss."""
        try:
            lines = [json.loads(line) for line in self.run.metrics.read_bytes().splitlines()]
        except (OSError, json.JSONDecodeError):
            return 0, None
        losses = [line["train/nats_per_token"] for line in lines if "train/nats_per_token" in line]
        return (lines[-1]["step"], losses[-1]) if losses else (0, None)


def train(arms: Sequence[Arm]) -> None:
    """Trains those that are not finished yet; one that was stopped goes on."""
    waiting = [arm for arm in arms if not arm.finished()]
    for arm in waiting:
        print("$ " + " ".join(_command(arm, "PORT")[1:]).replace("--master_port PORT ", ""))
    if not waiting:
        print(f"all {len(arms)} runs are there already (rm -r demo/runs to train anew)")
        return
    total = sum(Lengths(load(RunConfig, arm.config, arm.keys)).total for arm in waiting)
    shown = sum(arm.steps_done()[0] for arm in waiting)
    with progress(f"{len(waiting)} runs", total, done=shown, unit="steps") as bar:

        def look(running: Sequence[Arm]) -> None:
            nonlocal shown
            shown += _show(bar, waiting, running, shown)

        def ended(arm: Arm, process: subprocess.Popen[bytes]) -> bool:
            return has_finished(process, arm.finished, arm.folder, _log(arm))

        side_by_side(waiting, _start, ended, _AT_ONCE, look)


def _start(arm: Arm) -> subprocess.Popen[bytes]:
    port = free_port()
    threads = max(1, (os.cpu_count() or 1) // _AT_ONCE)
    arm.folder.parent.mkdir(parents=True, exist_ok=True)
    with _log(arm).open("ab") as log:
        return subprocess.Popen(
            _command(arm, str(port)),
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def _command(arm: Arm, port: str) -> list[str]:
    launcher = Path(sys.executable).with_name("deepspeed")
    script = ["launch/pretrain.py", "--config", str(arm.config), *arm.keys]
    return [sys.executable, str(launcher), "--num_accelerators", "1", "--master_port", port, *script]


def _log(arm: Arm) -> Path:
    return arm.folder.with_suffix(".log")


def _show(bar: Bar, arms: Sequence[Arm], running: Sequence[Arm], shown: int) -> int:
    """Advances the bar by what all arms have done since; returns how much."""
    done = {arm.label: arm.steps_done() for arm in arms}
    facts = {arm.label: f"{done[arm.label][1]:.2f}" for arm in running if done[arm.label][1] is not None}
    more = sum(steps for steps, _ in done.values()) - shown
    bar.advance(more, **facts)
    return more
