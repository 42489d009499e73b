"""What a run folder tells of a run: configuration, metrics, log, environment, how it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from megarc.config import load
from megarc.errors import UserError
from megarc.model import cost_of
from megarc.train import RunConfig, RunFolder, Timeline, passes

_COUNTERS = ("step", "samples", "predicted_tokens", "processed_tokens", "time")
_SKIPPED = re.compile(r"^(\S+ [\d:]+)\S* step (\d+) is skipped, (?:\d+) in a row: (.*)$")
_RESUMED = re.compile(r"^(\S+ [\d:]+)\S* resumes from step (\d+)")
_BACK = re.compile(r"^(\S+ [\d:]+)\S* (returns to step \d+;.*)$")


@dataclass(frozen=True)
class RunHistory:
    """A run, as its folder tells.

    Attributes:
        name: how the report calls it.
        lines: of metrics.jsonl, in order.
        log: lines of log.txt.
        environment: of environment.json; empty where there is none.
    """

    name: str
    folder: RunFolder
    config: RunConfig
    lines: list[dict[str, Any]]
    log: list[str]
    environment: dict[str, Any]

    def curve(self, metric: str, against: str = "step") -> list[tuple[float, float]]:
        """Points ``(counter, value)`` of the lines that have this metric."""
        return [
            (self.counter(line, against), line[metric]) for line in self.lines if line.get(metric) is not None
        ]

    def counter(self, line: dict[str, Any], name: str) -> float:
        """``step``, ``predicted_tokens``, ``processed_tokens``, ``flops`` or ``hours`` at a line of metrics."""
        if name == "flops":
            return self.flops(line["samples"])
        if name == "hours":
            return float(line["time"] - self.lines[0]["time"]) / 3600
        return float(line[name])

    def flops(self, samples: int) -> float:
        """Forward and backward FLOPs of the first ``samples``, by the exact mask of full windows.

        A pass of a nested model counts as one of its full width.
        """
        model, times = self.config.model, passes(self.config)
        return times * self._timeline.shapes.before(
            samples, lambda window: cost_of(model, window).training_flops
        )

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1]

    def newest(self, metric: str) -> float | None:
        """The last value of a metric; None where no line has it."""
        return next((line[metric] for line in reversed(self.lines) if line.get(metric) is not None), None)

    def final(self, metric: str) -> float | None:
        """The last value of a loss; None where there is none, or it is not finite in the last line where it is due.

        A line of metrics leaves out what is not finite: a loss is due wherever others of its prefix stand.
        """
        beside = metric.rpartition("/")[0] + "/"
        due = [line for line in self.lines if any(name.startswith(beside) for name in line)]
        return due[-1].get(metric) if due else None

    @property
    def tokenizer(self) -> str | None:
        """The digest of the run's tokenizer; None where the folder does not tell."""
        try:
            facts = orjson.loads((self.folder.tokenizer / "facts.json").read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        return facts.get("digest") if isinstance(facts, dict) else None

    @property
    def skipped(self) -> list[tuple[str, int, str]]:
        """When, which step, and what it held: the loss or norm that was bad, and its samples."""
        found = [match for line in self.log if (match := _SKIPPED.match(line))]
        return [(match[1], int(match[2]), match[3]) for match in found]

    @property
    def restarts(self) -> list[tuple[str, int]]:
        """When the run went on, and from which step."""
        return [(match[1], int(match[2])) for line in self.log if (match := _RESUMED.match(line))]

    @property
    def returns(self) -> list[tuple[str, str]]:
        """When the run went back to an earlier checkpoint by itself, in the log's words."""
        return [(match[1], match[2]) for line in self.log if (match := _BACK.match(line))]

    @cached_property
    def _timeline(self) -> Timeline:
        return Timeline.of(self.config)


def read_history(path: Path, name: str | None = None) -> RunHistory:
    """The run in the folder ``path``.

    Raises:
        UserError: where it holds no run, no line of metrics, or one that is not JSON.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise UserError(f"{path} holds no run: there is no config.yaml; give a run folder")
    try:
        lines = folder.metric_lines(_COUNTERS, going_on=True)
    except OSError:
        lines = []
    if not lines:
        raise UserError(f"the run {path} has logged no metrics yet; leave it out, or wait for its first line")
    log = (
        folder.log.read_text(encoding="utf-8", errors="replace").splitlines() if folder.log.is_file() else []
    )
    try:
        environment = orjson.loads(folder.environment.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        environment = None
    known = environment if isinstance(environment, dict) else {}
    return RunHistory(name or str(path), folder, load(RunConfig, folder.config), lines, log, known)


def short_names(paths: Sequence[Path]) -> list[str]:
    """A name for each run: the end of its path, as long as it takes to tell them apart."""
    parts = [path.absolute().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(some[-depth:]) for some in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("a run is given twice; give each run once")
