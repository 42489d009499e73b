"""The arms: runs that differ only in their window, each started by the deepspeed launcher."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts import resource, show

from megarc.config import load
from megarc.jobs import has_finished, side_by_side
from megarc.progress import Bar, progress
from megarc.rank_environment import free_port
from megarc.train import Lengths, RunConfig, RunFolder


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
        """The last step in its metrics, and its loss."""
        try:
            lines = [json.loads(line) for line in self.run.metrics.read_bytes().splitlines()]
        except (OSError, json.JSONDecodeError):
            return 0, None
        losses = [line["train/nats_per_token"] for line in lines if "train/nats_per_token" in line]
        return (lines[-1]["step"], losses[-1]) if losses else (0, None)


def train(arms: Sequence[Arm], at_once: int) -> None:
    """Trains those that are not finished yet, ``at_once`` at a time; one that was stopped continues."""
    waiting = [arm for arm in arms if not arm.finished()]
    for arm in waiting:
        show(["deepspeed", *_command(arm)])
    if not waiting:
        print(f"all {len(arms)} models are trained already (rm -r demo/runs trains them again)")
        return
    total = sum(Lengths(load(RunConfig, arm.config, arm.keys)).total for arm in waiting)
    shown = sum(arm.steps_done()[0] for arm in waiting)
    with progress("training", total, done=shown, unit="steps") as bar:

        def look(running: Sequence[Arm]) -> None:
            nonlocal shown
            shown += _show(bar, waiting, running, shown)

        def ended(arm: Arm, process: subprocess.Popen[bytes]) -> bool:
            return has_finished(process, arm.finished, arm.folder, _log(arm))

        side_by_side(waiting, _start, ended, at_once, look)


def _start(arm: Arm) -> subprocess.Popen[bytes]:
    launcher = [sys.executable, str(Path(sys.executable).with_name("deepspeed"))]
    arm.folder.parent.mkdir(parents=True, exist_ok=True)
    with _log(arm).open("ab") as log:
        return subprocess.Popen(
            [*launcher, "--master_port", str(free_port()), *_command(arm)], stdout=log, stderr=log
        )


def _command(arm: Arm) -> list[str]:
    script = [str(resource("launch/pretrain.py")), "--config", str(arm.config), *arm.keys]
    return ["--num_accelerators", "1", *script]


def _log(arm: Arm) -> Path:
    return arm.folder.with_suffix(".log")


def _show(bar: Bar, arms: Sequence[Arm], running: Sequence[Arm], shown: int) -> int:
    """Advances the bar by what all arms have done since; returns how much."""
    done = {arm.label: arm.steps_done() for arm in arms}
    facts = {arm.label: f"{done[arm.label][1]:.2f}" for arm in running if done[arm.label][1] is not None}
    more = sum(steps for steps, _ in done.values()) - shown
    bar.advance(more, **facts)
    return more
