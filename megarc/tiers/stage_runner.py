"""Runs a stack's stages, one after the other or some at once, each as the command that anyone may type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from megarc.atomic_write import written_atomically
from megarc.errors import EXIT_SAVED, UserError
from megarc.jobs import side_by_side
from megarc.progress import progress
from megarc.tiers.config import RolloutsConfig
from megarc.tiers.rollout_store import Rollouts, sidecar
from megarc.tiers.rollout_writer import checkpoint_digest
from megarc.tiers.stack_plan import StackPlan, Stage, write_keys
from megarc.train import Lengths, RunConfig, RunFolder


def run_stack(plan: StackPlan, scripts: Path) -> dict[str, float]:
    """Every stage that is not done yet; seconds of all that were ever run, by stage.

    Args:
        scripts: the folder of pretrain.py and rollouts.py.

    Raises:
        UserError: where a stage fails; the same call goes on there.
    """
    write_keys(plan.folder / "stack.yaml", plan.config)
    if plan.config.prepare:
        _call(shlex.split(plan.config.prepare), "prepare")
    stages = list(plan.stages())
    took = _times(plan)
    for number, stage in enumerate(stages, start=1):
        print(f"\n[{number}/{len(stages)}] {stage.name}", flush=True)
        if is_done(stage):
            print(f"{stage.product} is there already", flush=True)
            continue
        write_keys(stage.file, stage.config)
        began = time.monotonic()
        _call(command(plan, stage, scripts), stage.name)
        took[stage.name] = took.get(stage.name, 0.0) + time.monotonic() - began
        with written_atomically(plan.folder / "times.json") as file:
            file.write(orjson.dumps(took, option=orjson.OPT_INDENT_2))
    return took


def run_at_once(plan: StackPlan, stages: Sequence[Stage], scripts: Path, at_once: int) -> None:
    """Stages that do not need each other, ``at_once`` at a time, each with a log beside its keys.

    Raises:
        UserError: where one fails.
    """
    waiting = [stage for stage in stages if not is_done(stage)]
    environment = {**os.environ, "OMP_NUM_THREADS": _threads(at_once)}
    with progress(f"{len(waiting)} runs", len(waiting), unit="runs") as bar:

        def start(stage: Stage) -> subprocess.Popen[bytes]:
            write_keys(stage.file, stage.config)
            words = command(plan, stage, scripts)
            with stage.file.with_suffix(".log").open("ab") as out:
                return subprocess.Popen(words, stdout=out, stderr=out, env=environment)

        def ended(stage: Stage, process: subprocess.Popen[bytes]) -> bool:
            code = process.poll()
            if code is None:
                return False
            _check(stage, code)
            bar.advance(1)
            return True

        def look(running: Sequence[Stage]) -> None:
            bar.advance(0, now=", ".join(stage.name for stage in running) or "-")

        side_by_side(waiting, start, ended, at_once, look)


def command(plan: StackPlan, stage: Stage, scripts: Path) -> list[str]:
    """What starts a stage."""
    first, *words = shlex.split(plan.config.launcher)
    beside = Path(sys.executable).with_name(first)
    program = sys.executable if first == "python" else str(beside) if beside.exists() else first
    return [program, *words, str(scripts / stage.script), "--config", str(stage.file)]


def is_done(stage: Stage) -> bool:
    """Whether a stage's product is there, made by what now stands below it."""
    if isinstance(stage.config, RolloutsConfig):
        return sidecar(stage.product).exists() and _is_made_by(stage.config)
    return _has_finished(stage.config)


def _is_made_by(config: RolloutsConfig) -> bool:
    if config.huggingface:
        return False  # the command itself looks
    facts, writes = Rollouts(config.to).facts, config.writes
    names = ("samples", "tokens", "temperature", "top_k", "top_p")
    same = all(getattr(facts, name) == getattr(writes, name) for name in names) and facts.seed == config.seed
    return same and facts.writer == checkpoint_digest(config.writer)


def _has_finished(config: RunConfig) -> bool:
    try:
        state = orjson.loads(RunFolder(config.folder).state.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    return state["state"] == "finished" and state.get("total") == Lengths(config).total


def _call(words: Sequence[str], name: str) -> None:
    if words[0] == "python":
        words = [sys.executable, *words[1:]]
    print("$ " + " ".join(["python" if word == sys.executable else word for word in words]), flush=True)
    try:
        code = subprocess.run(words, env={"OMP_NUM_THREADS": _threads(2), **os.environ}).returncode
    except OSError as error:
        raise UserError(f"{name}: cannot start {words[0]}: {error.strerror}; see the key launcher") from None
    if code == EXIT_SAVED:
        raise UserError(f"{name} was stopped and saved; the same command resumes there")
    if code:
        raise UserError(
            f"{name} ended with code {code}; its message is above. The same command resumes there"
        )


def _threads(processes: int) -> str:
    """Threads of each of so many processes: threads that wait for one another on a busy machine stand still."""
    return str(max(1, (os.cpu_count() or 1) // processes))


def _check(stage: Stage, code: int) -> None:
    if code or not is_done(stage):
        log = stage.file.with_suffix(".log")
        tail = log.read_text(errors="replace").strip().splitlines()[-12:]
        raise UserError(f"{stage.name} did not finish (code {code}); the end of {log}:\n" + "\n".join(tail))


def _times(plan: StackPlan) -> dict[str, float]:
    try:
        return dict(orjson.loads((plan.folder / "times.json").read_bytes()))
    except (OSError, orjson.JSONDecodeError):
        return {}
