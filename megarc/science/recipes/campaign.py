"""Every try of a comparison: a grid of rates and warm-ups for each arm on one seed, then seeds of each arm's best."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from megarc.data import Maker
from megarc.science.recipes.arms import CAUSAL, arm_config, flops_of, targets_window, with_vocabulary
from megarc.science.recipes.config import CompareConfig
from megarc.science.recipes.made_with import check_made_with, write_made_with
from megarc.science.recipes.score import Scored, score
from megarc.science.statistics import Difference, paired
from megarc.train import Lengths, RunConfig, RunFolder, hold, load_model


@dataclass(frozen=True, slots=True)
class Try:
    """One run of the comparison."""

    arm: str
    rate: float
    warmup: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}-lr{self.rate:g}-w{self.warmup.replace(' ', '')}-s{self.seed}"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a try. Losses in nats a held-out target; NaN where the run ended badly."""

    arm: str
    rate: float
    warmup: str
    seed: int
    steps: int
    flops: float
    nats: float
    error: float
    both_ways: float
    both_ways_error: float
    seconds: float  # NaN where it ran beside others

    @property
    def key(self) -> Try:
        return Try(self.arm, self.rate, self.warmup, self.seed)


class Campaign:
    """Runs what is not there yet; ``results.jsonl`` in the comparison's folder has a line for each try.

    Args:
        train: trains one run to its end, on all ranks; false where its numbers went bad.
        first: whether this rank scores and writes.
        together: calls a function on all ranks; none goes on before all have, and a UserError of one ends all.

    Raises:
        UserError: where the folder holds results of other keys or data.
    """

    def __init__(
        self,
        config: CompareConfig,
        makers: Mapping[str, Maker],
        train: Callable[[RunConfig], bool],
        *,
        first: bool = True,
        together: Callable[[Callable[[], None]], None] = lambda action: action(),
    ) -> None:
        self.config, self.makers, self.train = with_vocabulary(config, makers), makers, train
        self.first, self.together = first, together
        self.file = config.folder / "results.jsonl"
        check_made_with(self.config, makers)

    @property
    def results(self) -> list[Result]:
        """All tries so far; a line that a killed process left half written counts for nothing."""
        found = []
        for line in self.file.read_bytes().splitlines() if self.file.exists() else []:
            try:
                tree: dict[str, Any] = orjson.loads(line)
                tree = {name: math.nan if value is None else value for name, value in tree.items()}
                found.append(Result(**tree))
            except (orjson.JSONDecodeError, TypeError):
                continue
        return found

    def grid(self) -> list[Try]:
        """Every arm with every rate and warm-up, on the first seed."""
        warmups = [str(warmup) for warmup in self.config.warmups] or [str(self.config.run.schedule.warmup)]
        seed = self.config.run.seed
        return [
            Try(arm, rate, warmup, seed)
            for arm in self.config.arms
            for rate in self.config.rates
            for warmup in warmups
        ]

    def finals(self) -> list[Try]:
        """The other seeds of each arm's best, where the arm is among the best ``finals`` of its kind."""
        seed, chosen = self.config.run.seed, self.in_the_finals()
        return [
            Try(arm, best.rate, best.warmup, seed + number)
            for number in range(1, self.config.seeds)
            for arm, best in chosen.items()
        ]

    def in_the_finals(self) -> dict[str, Result]:
        """The best of each arm that is trained on more seeds; none where the grid of an arm is not whole yet."""
        best = self.best()
        if self.config.finals is None:
            return best
        done = {result.key for result in self.results}
        if any(one not in done for one in self.grid()):
            return {}
        ranked = sorted(best, key=lambda arm: best[arm].nats)
        kinds = ([arm for arm in ranked if (arm in CAUSAL) is causal] for causal in (True, False))
        return {arm: best[arm] for kind in kinds for arm in kind[: self.config.finals]}

    def best(self) -> dict[str, Result]:
        """Each arm's best try of the grid, where that is whole."""
        done = {result.key: result for result in self.results}
        grid = self.grid()
        found: dict[str, Result] = {}
        for arm in self.config.arms:
            mine = [
                done[one] for one in grid if one.arm == arm and one in done and not math.isnan(done[one].nats)
            ]
            if mine and all(one in done for one in grid if one.arm == arm):
                found[arm] = min(mine, key=lambda result: result.nats)
        return found

    def finalists(self) -> dict[str, list[Result]]:
        """The runs of each arm's best rate and warm-up, by seed."""
        best = self.best()
        return {
            arm: sorted(
                (one for one in self.results
                 if (one.arm, one.rate, one.warmup) == (arm, chosen.rate, chosen.warmup) and not math.isnan(one.nats)),
                key=lambda one: one.seed,
            )
            for arm, chosen in best.items()
        }  # fmt: skip

    def at_the_edge(self, arm: str) -> bool:
        """Whether the arm's best rate is the smallest or the largest that was tried."""
        best = self.best().get(arm)
        return best is not None and len(self.config.rates) > 1 and best.rate in (
            min(self.config.rates), max(self.config.rates)
        )  # fmt: skip

    def run(self) -> Iterator[Try]:
        """Trains and scores what is missing; yields each try before it begins.

        Raises:
            UserError: also where another process runs the same comparison.
        """
        with ExitStack() as stack:
            self.together(lambda: self._begin(stack))
            for plan in (self.grid, self.finals):
                for one in plan():
                    if one in {result.key for result in self.results}:
                        continue
                    yield one
                    self._try(one)

    def run_at_once(self, train: Callable[[Sequence[RunConfig]], Collection[Path]]) -> None:
        """The same, where ``train`` trains many runs to their ends in whichever order; then all are scored.

        Args:
            train: gives the folders of runs whose numbers went bad.
        """
        with ExitStack() as stack:
            self._begin(stack)
            for plan in (self.grid, self.finals):
                done = {result.key for result in self.results}
                configs = {one: self.run_of(one) for one in plan() if one not in done}
                for config in configs.values():
                    _forget_unless_saved(RunFolder(config.folder))
                diverged = train(list(configs.values()))
                for one, config in configs.items():
                    self._keep(one, config, math.nan, diverged=config.folder in diverged)

    def run_of(self, one: Try) -> RunConfig:
        """The run of a try."""
        config = arm_config(self.config, one.arm)
        folder = self.config.folder / "runs" / one.name
        schedule = config.schedule.model_dump(mode="json") | {"warmup": one.warmup}
        return config.model_copy(
            update={
                "folder": folder,
                "seed": one.seed,
                "optimizer": config.optimizer.model_copy(update={"lr": config.optimizer.lr * one.rate}),
                "schedule": type(config.schedule).model_validate_json(orjson.dumps(schedule)),
            }
        )

    def _begin(self, stack: ExitStack) -> None:
        """Keeps other processes out of the folder, and writes what the results are made with."""
        if self.first:
            self.config.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(self.config.folder / "lock"))
            write_made_with(self.config, self.makers)

    def _try(self, one: Try) -> None:
        config, begun = self.run_of(one), time.monotonic()
        diverged = not self.train(config)
        seconds = time.monotonic() - begun
        self.together(lambda: self._keep(one, config, seconds, diverged=diverged) if self.first else None)

    def _keep(self, one: Try, config: RunConfig, seconds: float, *, diverged: bool) -> None:
        found = Scored(math.nan, math.nan, math.nan, math.nan)
        if not diverged:
            saved = load_model(config.folder)
            found = score(self.config, saved, targets_window(self.config, config), self.makers)
        steps, flops = Lengths(config).total, flops_of(config)
        result = Result(**asdict(one), steps=steps, flops=flops, **asdict(found), seconds=round(seconds, 1))
        torn = self.file.exists() and not self.file.read_bytes().endswith(b"\n")
        with self.file.open("ab") as file:
            file.write(b"\n" * torn + orjson.dumps(asdict(result)) + b"\n")
        shutil.rmtree(config.folder / "checkpoints", ignore_errors=True)


def _forget_unless_saved(run: RunFolder) -> None:
    """A run without checkpoints was scored, and its result is lost: it has to be trained again."""
    if not run.checkpoints.exists():
        run.state.unlink(missing_ok=True)


def verdict(campaign: Campaign) -> tuple[str, str, Difference] | None:
    """The best causal arm, the best other one, and how much lower that is, paired by seed; None: too early."""
    finals = {arm: runs for arm, runs in campaign.finalists().items() if arm in campaign.in_the_finals()}
    means = {arm: sum(one.nats for one in runs) / len(runs) for arm, runs in finals.items() if runs}
    causal = [arm for arm in means if arm in CAUSAL]
    others = [arm for arm in means if arm not in CAUSAL]
    if not causal or not others:
        return None
    base, best = (min(some, key=lambda arm: means[arm]) for some in (causal, others))
    by_seed = [{one.seed: one.nats for one in finals[arm]} for arm in (best, base)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    return base, best, paired([by_seed[0][seed] for seed in seeds], [by_seed[1][seed] for seed in seeds])
