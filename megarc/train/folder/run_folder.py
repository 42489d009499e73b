"""A run's folder: what is where, whether this run may go on in it, how it ended."""

from __future__ import annotations

import errno
import logging
import platform
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

import megarc
from megarc.atomic_write import written_atomically
from megarc.config import differences, identity, load, to_kept_yaml
from megarc.errors import UserError, shortened
from megarc.train.config import RunConfig
from megarc.train.folder.append_only import LogFile
from megarc.train.folder.notify import notify

_TIME = "%Y-%m-%d %H:%M:%S"
_SHOWN_DIFFERENCES = 12
_SECONDS_TO_SEE = 10.0  # a network file system tells other hosts of a new folder a little later
_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE)


class RunFolder:
    """The paths of a run, and the small files that tell about it.

    Args:
        hook: a program and its arguments that is told when the run ends or goes back.
    """

    def __init__(self, path: Path, hook: Sequence[str] = ()) -> None:
        self.path, self.hook = path, hook

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def experts(self) -> Path:
        """Rows of each expert, where the model has experts."""
        return self.path / "experts.jsonl"

    def metric_lines(
        self, counters: Sequence[str] = ("step",), *, going_on: bool = False
    ) -> list[dict[str, Any]]:
        """Every line of the metrics, in order.

        Args:
            counters: numbers that each line has.
            going_on: a last line that is half written is passed over.

        Raises:
            UserError: for a line that holds anything but numbers and what is unknown (null).
            OSError: where the file cannot be read.
        """
        raw, found = self.metrics.read_bytes().splitlines(), []
        for number, line in enumerate(raw, start=1):
            try:
                entry = orjson.loads(line)
            except orjson.JSONDecodeError:
                if going_on and number == len(raw):
                    continue
                entry = None
            if not _is_of_metrics(entry, counters):
                raise UserError(f"{self.metrics}, line {number}, is not a line of metrics; remove it")
            found.append(entry)
        return found

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def ranks(self) -> Path:
        return self.path / "ranks"

    @property
    def run(self) -> str:
        """Which run the folder holds: a name that it keeps for good and no other run has; "" where there is none."""
        return str(self._kept().get("run", ""))

    @property
    def starts(self) -> int:
        """How often the run was started, on whatever ranks."""
        found = self._kept().get("starts", 0)
        return found if isinstance(found, int) else 0

    def _kept(self) -> dict[str, Any]:
        try:
            facts = orjson.loads(self.environment.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def log_of(self, rank: int) -> Path:
        return self.ranks / f"rank-{rank:05d}.log"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    def enter(self, config: RunConfig, facts: dict[str, Any]) -> None:
        """Makes the folder for a new run, or checks that this is the run it holds. Rank 0 only.

        Args:
            facts: kept in environment.json beside versions and devices.

        Raises:
            UserError: where it holds another run (the difference is shown), or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.config.exists():
                self._check_same_run(config)
            elif leftovers := [entry.name for entry in self.path.iterdir() if not _passing(entry.name)]:
                raise UserError(
                    f"the run folder {self.path} has no config.yaml but holds other things "
                    f"({', '.join(sorted(leftovers)[:4])}); choose another with folder=..."
                )
            environment = {
                "run": self.run or uuid.uuid4().hex,
                "starts": self.starts + 1,
                **_environment(),
                **facts,
            }
            with written_atomically(self.config) as file:
                file.write(to_kept_yaml(config).encode())
            with written_atomically(self.environment) as file:
                file.write(orjson.dumps(environment, option=orjson.OPT_INDENT_2))
            self.checkpoints.mkdir(exist_ok=True)
            self.ranks.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"the run folder {self.path} cannot be written: {error}") from None

    def seen_by(self, rank: int) -> None:
        """Checks that this rank sees the folder that rank 0 entered, and can write in it.

        Raises:
            UserError: where it does not: a disk that only some hosts share.
        """
        end = time.monotonic() + _SECONDS_TO_SEE
        while not self.ranks.is_dir() and time.monotonic() < end:
            time.sleep(0.2)
        where = f"the run folder {self.path.absolute()} of rank 0"
        if not self.ranks.is_dir():
            raise UserError(
                f"{where} is not there on {platform.node()}: it must lie on a disk that all hosts share"
            )
        try:
            self.log_of(rank).open("a").close()
        except OSError as error:
            raise UserError(f"{where} cannot be written on {platform.node()}: {error}") from None

    def write_state(self, state: str, **facts: Any) -> None:
        """Writes state.json: running, saved, finished or failed. Launchers lose exit codes.

        Raises:
            UserError: where it cannot be written, or the whole folder has vanished.
        """
        if not self.path.is_dir():
            raise UserError(f"the run folder {self.path} has vanished; bring it back, or train in another")
        content = {"state": state, "time": time.strftime(_TIME), **facts}
        with written_atomically(self.state) as file:
            file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        if state != "running":
            self.tell(state, **facts)

    def tell(self, event: str, **facts: Any) -> None:
        """What ``hook`` is told, beside the run's folder."""
        notify(self.hook, event, {"run": str(self.path.absolute()), "host": platform.node(), **facts})

    def fate(self, since: float = 0.0) -> str:
        """How the run stands, by state.json, in words that begin with the state.

        Args:
            since: Unix time; what was written before it is of an earlier job.

        Raises:
            UserError: where there is no run, or no job since then got so far.
        """
        try:
            state = orjson.loads(self.state.read_bytes())
        except FileNotFoundError:
            raise UserError(f"{self.path} contains no run that has started: there is no state.json") from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise UserError(f"{self.state} cannot be read: {error}") from None
        try:
            word, when = state["state"], time.mktime(time.strptime(state["time"], _TIME))
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{self.state} is damaged: it needs 'state' and 'time', a date") from None
        if when < int(since):
            raise UserError(f"{self.path}: this job did not begin; before it, {word}, {state['time']}")
        where = f" at step {state['step']} of {state.get('total')}" if "step" in state else ""
        why = f": {state['error']}" if "error" in state else ""
        return f"{word}{where}, {state['time']}{why}"

    def failed_with(self) -> str:
        """The name of the error's class that ended the run; "" where none did."""
        try:
            state = orjson.loads(self.state.read_bytes())
            return str(state["error"]).split(":")[0] if state["state"] == "failed" else ""
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            return ""

    def record_failure(self, error: str, **facts: Any) -> None:
        """In state.json and log.txt, as far as they can still be written."""
        error = shortened(error)
        with suppress(UserError, OSError):
            self.write_state("failed", error=error, **facts)
            self.note(f"failed: {error}")

    def note(self, text: str) -> None:
        """A line of log.txt that is not shown; where it cannot be written, that is no reason to stop."""
        with suppress(OSError), self.log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    @contextmanager
    def failures_recorded(self, where: Callable[[], str], known: Callable[[], bool]) -> Iterator[None]:
        """Tells what ends the block, and where that was; a full or vanished disk is the user's.

        Args:
            known: whether another thread or rank tells the cause, of which this is a consequence.
        """
        try:
            yield
        except BaseException as error:
            if not known():
                self.record_failure(f"{type(error).__name__}: {error}", at=where())
            if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
                raise UserError(
                    f"the run folder {self.path} cannot be written any more: {error}; "
                    "free some space and run the same command again: it resumes from the newest checkpoint"
                ) from None
            raise

    @contextmanager
    def logged(self, logger: logging.Logger, path: Path) -> Iterator[None]:
        """Keeps in ``path`` what the logger says while the block runs."""
        handler = LogFile(path)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            handler.close()

    def _check_same_run(self, config: RunConfig) -> None:
        changed = differences(identity(load(RunConfig, self.config)), identity(config))
        if changed:
            lines = [f"{name}: {old} there, {new} now" for name, old, new in changed[:_SHOWN_DIFFERENCES]]
            raise UserError(
                f"the run folder {self.path} holds a run of another configuration:\n         "
                + "\n         ".join(lines)
                + "\n       use the old values, or another folder (folder=...)"
            )


def _passing(name: str) -> bool:
    """Whether a file is of no run: the lock, or what a killed writer left half done."""
    return name.startswith("lock") or name.endswith(".partial")


def _environment() -> dict[str, Any]:
    import torch  # here alone: to read how a run stands it is not needed

    packages = ("torch", "deepspeed", "numpy", "sentencepiece", "safetensors", "triton")
    return {
        "megarc": megarc.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or "cpu",
        "packages": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the code, where it runs from a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _is_of_metrics(entry: Any, counters: Sequence[str]) -> bool:
    """Whether it has the counters, and nothing but numbers and what is unknown."""
    return (
        isinstance(entry, dict)
        and type(entry.get("step")) is int
        and all(type(entry.get(name)) in (int, float) for name in counters)
        and all(value is None or type(value) in (int, float) for value in entry.values())
    )
