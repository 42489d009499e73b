"""Numbers of a run: a line of JSON, tensorboard, a progress bar. Rank 0 writes; all ranks take part."""

from __future__ import annotations

import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import orjson
import torch

from megarc.atomic_write import written_atomically
from megarc.data import Stream, Task, predicted_by, processed_by
from megarc.lean_imports import without
from megarc.model import Cost
from megarc.parallel import Groups, all_reduce_sum
from megarc.progress import Bar, describe_time_left, human, progress
from megarc.train.engine import Engine, Work
from megarc.train.folder import Lines, RunFolder
from megarc.train.loop import Done, Ending, Moment, Observer
from megarc.train.metrics.console_rows import ConsoleRows
from megarc.train.metrics.device_limits import peak_memory
from megarc.train.metrics.heldout_loss import heldout_losses, losses_by_width, together_of
from megarc.train.metrics.task_scores import task_scores
from megarc.train.schedule import Timeline, passes
from megarc.window import Window

log = logging.getLogger("megarc")


class Metrics(Observer):
    """Loss, rates, MFU and memory every ``logging.every`` steps, held-out loss and tasks every ``validation.every``.

    Rates and MFU leave out the time of held-out losses: they say how fast it trains.
    """

    def __init__(
        self,
        folder: RunFolder,
        groups: Groups,
        timeline: Timeline,
        cost: Callable[[Window], Cost],
        *,
        peak: float | None,
        tensorboard: bool,
        console: str,
        patient: bool,
        heldout: Stream | None,
        heldout_windows: int,
        tasks: Sequence[Task],
        bytes_a_token: float | None,
        extra: Callable[[], Mapping[str, float | None]],
    ) -> None:
        """
        Args:
            cost: of the model on a window.
            console: lines, table or json.
            peak: FLOP/s of one device, where it is known.
            patient: whether the run goes on where a line cannot be written.
            extra: what others measured since the last line.
        """
        self.folder, self.groups, self.timeline, self.cost, self.peak = folder, groups, timeline, cost, peak
        self.tensorboard, self.patient = tensorboard, patient
        self._console, self._table = console, ConsoleRows()
        self.heldout, self.heldout_windows = heldout, heldout_windows
        self.tasks = tasks
        self.bytes_a_token, self.extra = bytes_a_token, extra
        self.file: Lines | None = None
        self.board: Any = None
        self.bar: Bar | None = None
        self._bar_context: Any = None
        self._losses: list[float] = []  # of the steps since the last line that counted
        self._work = Work()  # of this rank, up to the last line
        self._samples = 0  # before the steps of the next line
        self._clock = 0.0
        self._shown = 0  # samples on the bar
        self._first_step = 1  # that this process takes
        self._terminal = sys.stderr.isatty()

    def start(self, engine: Engine, moment: Moment) -> None:
        if self.peak is None and self.groups.first:
            log.warning(
                "MFU is unknown: no peak is known for this device; give it with logging.peak_flops=..."
            )
        if self.groups.first:
            cut_metrics(self.folder, moment.step)
            self.file = Lines(self.folder.metrics, patient=self.patient)
            self._first_step = moment.step + 1
        total, name = self.timeline.samples, self.folder.path.name
        quiet = not self._terminal or not self.groups.first or self._console != "lines"
        self._bar_context = progress(name, total, done=moment.samples, unit="samples", quiet=quiet)
        self.bar = self._bar_context.__enter__()
        self._samples = self._shown = moment.samples
        self._work = engine.work  # a dry step is behind it
        self._clock = time.perf_counter()

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> None:
        assert self.bar is not None
        self.bar.advance(moment.samples - self._shown)
        self._shown = moment.samples
        self._losses += [done.loss for done in steps if not done.left_out]
        if moment.every(self.timeline.logging):
            self._log(moment, steps[-1], self._cost_of_work(engine, moment))
        every = self.timeline.heldout
        if self.heldout is not None and every is not None and moment.every(every):
            before = time.perf_counter()
            # The steps that were just taken say which window: a stage begins with the next one.
            heldout = self.heldout.held_out(moment.before)
            sources = heldout_losses(engine, heldout, self.heldout_windows)
            losses = {"": together_of(sources)} | ({one.name: one for one in sources} if sources[1:] else {})
            losses |= losses_by_width(engine, heldout, self.heldout_windows)
            if engine.average is not None:
                with engine.average.in_place():
                    losses["average"] = together_of(heldout_losses(engine, heldout, self.heldout_windows))
            values_of = {name: one.in_units() for name, one in losses.items()}
            self._write(
                moment,
                {
                    "/".join(filter(None, ("heldout", name, unit))): value
                    for name, values in values_of.items()
                    for unit, value in values.items()
                },
            )
            self._say(
                moment,
                {f"held-out loss {name}".strip(): _describe_loss(values_of[name]) for name in values_of},
            )
            self._clock += time.perf_counter() - before
        if self.timeline.tasks is not None and moment.every(self.timeline.tasks):
            before = time.perf_counter()
            window = self.timeline.shapes.piece(moment.before).window
            self._tell_tasks(moment, task_scores(engine, self.tasks, window))
            self._clock += time.perf_counter() - before

    def _tell_tasks(self, moment: Moment, scores: Mapping[str, Mapping[str, float]]) -> None:
        values = {
            f"tasks/{name}/{what}": value for name, found in scores.items() for what, value in found.items()
        }
        self._write(moment, values)
        self._say(moment, {name.removeprefix("tasks/"): f"{value:.3f}" for name, value in values.items()})

    def stop(self, engine: Engine, moment: Moment, ending: Ending) -> None:
        self._bar_context.__exit__(None, None, None)
        if self.file is not None:
            self.file.close()
        if self.board is not None:
            self.board.close()

    def _open_board(self) -> None:
        """With the first line, so that importing it does not hold up the first step."""
        if self.tensorboard and self.board is None:
            # It would import boto3 for stores, where that is installed: the run folder is on a disk.
            with without("boto3", "botocore"):
                from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder.tensorboard), purge_step=self._first_step)

    def _cost_of_work(self, engine: Engine, moment: Moment) -> Cost:
        """The mean sample's since the last line: packed rows allow fewer pairs, and weights may be 0."""
        work, self._work = engine.work - self._work, engine.work
        counts = torch.tensor(astuple(work), dtype=torch.float64)
        counts = all_reduce_sum(counts.to(self.groups.device), self.groups.replicas)
        samples, pairs, loss_rows, neurons = counts.tolist()
        # Context ranks share a sample's pairs and loss rows, and each counts the sample.
        samples, neurons = (count / self.groups.context.size for count in (samples, neurons))
        since, taken = self._samples, moment.samples - self._samples

        def mean(of: Callable[[Window], float]) -> float:
            return self._between(since, moment.samples, of) / taken

        cost = replace(
            self.cost(self.timeline.shapes.own),
            matrix_flops=round(mean(lambda window: self.cost(window).matrix_flops)),
            feed_forward_flops=round(mean(lambda window: self.cost(window).feed_forward_flops)),
            head_flops=round(mean(lambda window: self.cost(window).head_flops)),
            attention_flops=round(mean(lambda window: self.cost(window).attention_flops)),
            full_square_flops=round(mean(lambda window: self.cost(window).full_square_flops)),
        )
        if samples <= 0:  # the engine was built anew
            return cost
        return cost.of_work(
            pairs / (samples * mean(engine.config.model.narrowing.pairs)),
            loss_rows / (samples * mean(predicted_by)),
            neurons / samples,
            passes(engine.config),
        )

    def _log(self, moment: Moment, last: Done, cost: Cost) -> None:
        assert self.bar is not None
        loss = statistics.fmean(self._losses) if self._losses else math.nan
        elapsed = time.perf_counter() - self._clock
        since, self._samples = self._samples, moment.samples
        self._losses.clear()
        samples = (moment.samples - since) / elapsed
        flops, full_square = samples * cost.training_flops, samples * cost.training_flops_full_square
        predicted, processed = (
            self._between(since, moment.samples, of) / elapsed for of in (predicted_by, processed_by)
        )
        values = {
            **self._in_units("train", loss),
            "train/learning_rate": last.learning_rate,
            "train/gradient_norm": last.gradient_norm,
            "train/skipped": moment.skipped,
            **self._batch(moment),
            **self.extra(),
            "speed/predicted_tokens_per_second": predicted,
            "speed/processed_tokens_per_second": processed,
            "speed/mfu_exact_mask": self._share_of_peak(flops),
            "speed/mfu_full_square": self._share_of_peak(full_square),
            "memory/peak_gib": peak_memory(self.groups.device) / 2**30,
        }
        self._write(moment, values)
        facts = {
            "loss": f"{loss:.3f}",
            "gradient norm": f"{last.gradient_norm:.3g}",
            "predicted": f"{human(predicted)} tok/s",
            "processed": f"{human(processed)} tok/s",
            "MFU": "unknown" if (mfu := self._share_of_peak(flops)) is None else f"{100 * mfu:.1f} %",
            **({"skipped": str(moment.skipped)} if moment.skipped else {}),
        }
        self.bar.advance(0, step=f"{moment.step}/{moment.total}", **facts)
        # A bar shows the same.
        left = {"left": describe_time_left(self.bar.estimate)}
        if self._console == "table" and self.groups.first:
            self._table.show({"step": f"{moment.step}/{moment.total}", **facts, **left})
        self._say(moment, {**facts, **left}, aloud=self._console == "lines" and not self._terminal)
        self._clock = time.perf_counter()

    def _share_of_peak(self, flops: float) -> float | None:
        """MFU of a rate in FLOP/s; None where nobody knows the device's peak."""
        return flops / (self.peak * self.groups.world.size) if self.peak else None

    def _between(self, first: int, end: int, amount: Callable[[Window], float]) -> float:
        """The sum of ``amount`` over the samples ``first .. end - 1``."""
        shapes = self.timeline.shapes
        return shapes.before(end, amount) - shapes.before(first, amount)

    def _batch(self, moment: Moment) -> dict[str, float]:
        """The size of the last step, in each unit."""
        step = (moment.before, moment.samples)
        return {
            "batch/samples": moment.samples - moment.before,
            "batch/predicted_tokens": self._between(*step, lambda window: window.stride),
            "batch/processed_tokens": self._between(*step, lambda window: window.rows),
        }

    def _say(self, moment: Moment, facts: Mapping[str, str], *, aloud: bool = True) -> None:
        """A line for people in log.txt and, ``aloud``, on the console."""
        if self.groups.first:
            text = ", ".join(f"{name} {value}" for name, value in facts.items())
            (log.info if aloud and self._console != "json" else self.folder.note)(
                f"step {moment.step} of {moment.total}: {text}"
            )

    def _in_units(self, name: str, nats: float) -> dict[str, float]:
        """A loss in nats and bits a token and, where the text's bytes are known, bits a byte."""
        values = {f"{name}/nats_per_token": nats, f"{name}/bits_per_token": nats / math.log(2)}
        if self.bytes_a_token:
            values[f"{name}/bits_per_byte"] = nats / math.log(2) / self.bytes_a_token
        return values

    def _write(self, moment: Moment, values: Mapping[str, float | None]) -> None:
        if self.file is None:
            return
        # JSON has no nan; what is undefined is null.
        values = {name: value for name, value in values.items() if value is None or math.isfinite(value)}
        counts = {
            "step": moment.step,
            "samples": moment.samples,
            "predicted_tokens": self.timeline.predicted_tokens(moment.samples),
            "processed_tokens": self.timeline.processed_tokens(moment.samples),
            "time": time.time(),
        }
        line = orjson.dumps({**counts, **values})
        self.file.add(line)
        if self._console == "json":
            print(line.decode(), file=sys.stderr, flush=True)
        self._open_board()
        if self.board is not None:
            for name, value in values.items():
                if value is not None:
                    self.board.add_scalar(name, value, moment.step)


def _describe_loss(values: Mapping[str, float]) -> str:
    """``3.214 nats/token, 1.021 bits/byte``, the latter where the text's bytes are known."""
    text = f"{values['nats_per_token']:.3f} nats/token"
    byte = values.get("bits_per_byte")
    return text if byte is None else f"{text}, {byte:.3f} bits/byte"


def cut_metrics(folder: RunFolder, step: int) -> None:
    """Removes lines beyond ``step``: they are of steps that the checkpoint has not seen."""
    cut_lines(folder.metrics, step)


def cut_lines(path: Path, step: int) -> None:
    """The same of any file of lines that say their step."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            if orjson.loads(line)["step"] <= step:
                kept.append(line)
        except (orjson.JSONDecodeError, KeyError):
            continue  # the line that a killed run left half written
    with written_atomically(path) as file:
        file.writelines(line + b"\n" for line in kept)
